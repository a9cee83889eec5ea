"""Runs in shards beside runs in one piece: in this process, and on the workers of a cluster.

That workers let go of their shards is seen in ``on_dask._shards``, where they keep them.
"""

import os
import signal
import warnings

import numpy as np
import pytest
from conftest import assert_identical, random_game

import fastincentive as fi
from fastincentive.engines import Dask, Local

SETTINGS = {"refine": False, "polish": False}


def solved(problem, method, *args, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fi.ConvergenceWarning)
        return fi.solve(problem, method, *args, **SETTINGS, **settings)


def assert_same(found, expected):
    """The same iterates and the same figures about them, bit by bit."""
    assert found.nit == expected.nit
    assert found.status == expected.status
    assert_identical(found.history, expected.history)
    assert_identical(found.ascent, expected.ascent)
    assert found.objective == expected.objective


def counted(n=5, states=8, discount=0.9, payments=None, cost=None, seed=0, seen=1):
    """Random followers; the leader counts who is in some of the states."""
    rng = np.random.default_rng(seed)
    game = random_game(rng, n, states, 3, 0.9, closed=1, unavailable=0.2)
    labels = (np.arange(states) % 3 == 1).astype(int)
    labels[-1] = 0  # nothing is earned for ever
    labels[seen] = 1
    values = np.r_[0.0, rng.normal(size=n)]
    if payments is None:
        payments = fi.Payments.at_states([[i % 3 + 1] for i in range(n)])
    return fi.IncentiveProblem(
        game.problem().followers,
        fi.CountReward(labels, values),
        payments,
        discount,
        cost=cost,
    )


def undiscounted(n=4, cost=0.1):
    """Followers that do not discount, and may stay where they are or go on to a sink."""
    transition = np.zeros((4, 2, 4))
    for state in range(4):
        transition[state, 0, state] = transition[state, 1, min(state + 1, 3)] = 1.0
    reward = np.where(np.arange(4) < 3, -cost, 0.0)[:, None] * np.ones(2)
    mdp = fi.TabularMDP(transition, reward, discount=1.0, initial=np.eye(4)[0])
    return fi.IncentiveProblem(
        [mdp] * n,
        fi.CountReward([0, 1, 0, 0], np.r_[0.0, np.sin(np.arange(n))]),
        fi.Payments.everywhere(),
        0.9,
    )


def types():
    mdps = list(fi.models.random_problem(3, rng=2).followers)
    labels = np.arange(10) % 2
    return fi.IncentiveProblem(
        fi.Followers(mdps, [2, 1, 3]),
        fi.CountReward(labels, np.sin(np.arange(7.0))) + fi.AdditiveReward(np.arange(10) / 10),
        fi.Payments.at_states([[1], [2, 3], []]),
        0.9,
    )


def shared(cost=None, budget=None):
    index = np.full((5, 8, 3), -1)
    index[:, 1], index[:3, 2], index[2:, 3, 0] = 0, 1, 2
    index[3, 4] = 3
    return counted(payments=fi.Payments.from_index(index, budget=budget), cost=cost)


def custom(weight=1.0):
    return fi.CustomCost(lambda x: weight * float(x @ x), lambda x: 2.0 * weight * x)


PROBLEMS = {
    "crowd": lambda: fi.models.crowd(12, rng=1, size=5),
    "tariff": lambda: fi.models.demand_response(9, 6),
    "counts": counted,
    "undiscounted leader": lambda: counted(discount=1.0),
    "types": types,
    "shared": shared,
    "shared, a budget": lambda: shared(budget=0.7),
    "shared, spend": lambda: shared(fi.ExpectedSpend([1.0, 0.5, 2.0, 1.0])),
    "shared, quadratic": lambda: shared(fi.QuadraticCost([1.0, 0.5, 2.0, 1.0])),
    "spend": lambda: counted(cost=fi.ExpectedSpend([1.0, 0.5, 2.0, 1.0, 3.0])),
    "spend, a budget": lambda: counted(
        payments=fi.Payments.at_states([[1], [2], [3], [1], []], budget=0.1),
        cost=fi.ExpectedSpend(),
    ),
    "shared, spend, a budget": lambda: shared(fi.ExpectedSpend(), budget=0.1),
    "quadratic": lambda: counted(cost=fi.QuadraticCost(0.5, [1.0, 0.5, 2.0, 1.0, 3.0])),
    "custom": lambda: counted(cost=custom()),
    "a budget": lambda: counted(
        payments=fi.Payments.at_states([[1], [2], [3], [1], []], budget=0.7)
    ),
    "everywhere": lambda: counted(payments=fi.Payments.everywhere(2.0)),
}


@pytest.fixture(autouse=True)
def _never_small(monkeypatch):
    """Small problems would be one shard."""
    monkeypatch.setattr(fi.IncentiveProblem, "small", property(lambda self: False))


def without_the_product_space(problem):
    problem.leader_side.steps_before_doubling = np.inf
    return problem


LARGER = ("crowd", "tariff")


@pytest.mark.parametrize(
    "kind", [pytest.param(each, marks=[pytest.mark.slow] * (each in LARGER)) for each in PROBLEMS]
)
def test_shards_change_nothing(kind):
    problem = without_the_product_space(PROBLEMS[kind]())
    method = fi.BilevelAscent(max_iter=60 if kind in LARGER else 30)
    for start in ("leader-optimal", "best-response"):
        expected = solved(problem, method, initial_policies=start)
        for shards in (2, problem.n):
            found = solved(problem, method, initial_policies=start, engine=Local(shards))
            assert_same(found, expected)


def test_stationarity_is_measured_wherever_the_policies_are():
    problem, method = counted(), fi.BilevelAscent(max_iter=12)
    expected = solved(problem, method, stationarity_every=5)
    assert np.isfinite(expected.history.stationarity[::5]).all()
    assert_same(solved(problem, method, engine=Local(3), stationarity_every=5), expected)


@pytest.mark.parametrize(
    "method",
    [
        fi.BilevelAscent(response="soft", temperature=0.1, max_iter=15),
        fi.BilevelAscent(response="boltzmann", max_iter=15),
        fi.BilevelAscent(response="inner", max_iter=15),
        fi.BilevelAscent(barrier="gradient", schedule="sqrt", max_iter=15),
        fi.BilevelAscent(
            geometry="ambient", natural_gradient=False, schedule="constant", step=1e-3, max_iter=15
        ),
    ],
)
@pytest.mark.parametrize("kind", ["counts", "shared"])
def test_methods_in_shards(method, kind):
    problem = without_the_product_space(PROBLEMS[kind]())
    policies = fi.leader_optimal_policies(problem)
    for parameterization in (fi.Direct(), fi.Softmax(0.1)):
        settings = (method, parameterization, 1.0, policies)
        assert_same(solved(problem, *settings, engine=Local(3)), solved(problem, *settings))


def test_improper_policies_in_one_shard():
    problem = without_the_product_space(undiscounted())
    policies = np.full((4, 4, 2), 0.5)
    policies[2] = [1.0, 0.0]  # stays for ever
    settings = {"initial_policies": policies, "initial_payments": 0.0}
    method = fi.BilevelAscent(max_iter=10)
    expected = solved(problem, method, **settings)
    assert (expected.ascent.policies[2, :3, 1] > 0.0).all()
    assert_same(solved(problem, method, engine=Local(4), **settings), expected)


def test_a_checkpoint_goes_on_with_other_shards(tmp_path):
    problem = without_the_product_space(counted())
    expected = solved(problem, fi.BilevelAscent(max_iter=40))
    path = tmp_path / "run.npz"

    def interrupt(report):
        interrupt.calls += 1
        if interrupt.calls == 23:
            raise KeyboardInterrupt

    interrupt.calls = 0
    with pytest.raises(KeyboardInterrupt):
        solved(
            problem,
            fi.BilevelAscent(max_iter=40),
            engine=Local(3),
            checkpoint=path,
            callback=interrupt,
        )
    found = solved(problem, fi.BilevelAscent(max_iter=40), engine=Local(2), checkpoint=path)
    assert_same(found, expected)


def test_a_shard_needs_less_memory():
    problem = without_the_product_space(fi.models.crowd(12, rng=1, size=5))
    whole = problem.memory_estimate()
    assert problem.memory_estimate(engine=Local()) == whole
    part = problem.memory_estimate(engine=Local(4))
    assert part.horizon == whole.horizon
    for name in ("marginals", "conditional", "policies", "gradient"):
        assert getattr(part, name) * 4 == getattr(whole, name), name


def test_bad_engines():
    problem = without_the_product_space(counted())
    with pytest.raises(fi.InputError, match="engine: expected an Engine, got str"):
        fi.solve(problem, engine="dask")
    for shards in ("2", 1.5, None):
        with pytest.raises(fi.InputError, match="shards: expected an integer"):
            Local(shards)
    with pytest.raises(fi.InputError, match="shards: expected a positive integer, got 0"):
        fi.solve(problem, engine=Local(0))
    with pytest.raises(fi.InputError, match=r"multiplier: expected 'per-follower'.*got 'joint'"):
        fi.solve(problem, fi.BilevelAscent(multiplier="joint"), engine=Local(2))
    with pytest.raises(fi.InputError, match="engine: expected none with RegimeAscent"):
        fi.solve(problem, fi.RegimeAscent(), engine=Local(2))


def test_small_problems_stay_in_one_piece(monkeypatch):
    monkeypatch.undo()
    problem = fi.models.random_problem(2, rng=0)
    assert problem.small
    method = fi.BilevelAscent(max_iter=5)
    assert_same(solved(problem, method, engine=Local(2)), solved(problem, method))


# -- on a cluster --------------------------------------------------------------------------------

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=4, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def kill_a_worker(client):
    """Kill the process of a worker that has a shard."""
    pids = client.run(os.getpid)
    os.kill(pids[min(pids)], signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, None, 7])
def test_dask_finds_the_same(client, shards):
    problem = without_the_product_space(types() if shards == 1 else PROBLEMS["tariff"]())
    method = fi.BilevelAscent(max_iter=20)
    start = "leader-optimal" if shards == 1 else "best-response"
    expected = solved(problem, method, initial_policies=start)
    engine = Dask(client, shards)
    assert_same(solved(problem, method, initial_policies=start, engine=engine), expected)
    assert engine.traffic.iterations == expected.nit + 1
    assert engine.traffic.losses == 0


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint_every", [4, None])
def test_a_killed_worker_changes_nothing(client, checkpoint_every):
    problem = without_the_product_space(fi.models.crowd(12, rng=1, size=5))
    method = fi.BilevelAscent(max_iter=20)
    expected = solved(problem, method, initial_policies="best-response")

    def kill(report):
        kill.calls += 1
        if kill.calls == 11:
            kill_a_worker(client)

    kill.calls = 0
    engine = Dask(client, checkpoint_every=checkpoint_every)
    found = solved(problem, method, initial_policies="best-response", engine=engine, callback=kill)
    assert_same(found, expected)
    assert kill.calls == expected.nit + 1  # once for each iteration, repeated or not
    assert engine.traffic.losses >= 1
    repeated = 3 if checkpoint_every == 4 else 11
    assert engine.traffic.iterations == expected.nit + 1 + repeated


@pytest.mark.slow
def test_a_worker_killed_within_an_iteration(client, monkeypatch):
    problem = without_the_product_space(counted())
    method = fi.BilevelAscent(max_iter=12)
    expected = solved(problem, method)
    leader, calls = problem.leader, []
    expectations = leader.expectations
    monkeypatch.setattr(leader, "expectations", lambda m: calls.append(m) or expectations(m))
    fi.leader_optimal_policies(problem)
    first = len(calls)
    calls.clear()

    def killing(marginals):
        calls.append(marginals.shape)
        if len(calls) in (5, first + 4):  # while a start is sought, and in the middle of a step
            kill_a_worker(client)
        return expectations(marginals)

    monkeypatch.setattr(leader, "expectations", killing)
    engine = Dask(client)
    assert_same(solved(problem, method, engine=engine), expected)
    assert len(calls) > first + 12
    assert engine.traffic.losses >= 2


@pytest.mark.slow
def test_bytes_do_not_grow_with_the_states(client):
    moved = []
    for states in (8, 40):
        # The horizon is that of the discount: the leader earns where followers end, too.
        problem = without_the_product_space(counted(states=states, seen=states - 1))
        engine = Dask(client)
        solved(
            problem,
            fi.BilevelAscent(max_iter=10),
            initial_policies="best-response",
            engine=engine,
        )
        traffic = engine.traffic
        assert traffic.exchanges / traffic.iterations < 8.0
        moved.append(traffic.bytes_per_iteration)
        assert "MiB an iteration" in str(traffic)
    assert moved[0] == pytest.approx(moved[1], rel=0.02)


@pytest.mark.slow
def test_errors_of_workers_arrive(client):
    problem = without_the_product_space(undiscounted())
    with pytest.raises(fi.InputError, match="a bounded best total reward"):
        fi.solve(problem, engine=Dask(client), initial_payments=5.0)
    with pytest.raises(fi.InputError, match=r"client: expected a distributed\.Client, got str"):
        Dask("tcp://127.0.0.1:8786")
    with pytest.raises(fi.InputError, match="checkpoint_every: expected a positive integer"):
        Dask(client, checkpoint_every=0)
    for timeout in (0, np.inf, -3.0):
        with pytest.raises(fi.InputError, match="timeout: expected a finite number of seconds"):
            Dask(client, timeout=timeout)


@pytest.mark.slow
def test_nothing_is_left_on_the_workers(client):
    def held():
        from fastincentive.engines import on_dask

        return len(on_dask._shards)

    problem = without_the_product_space(counted())
    solved(
        problem,
        fi.BilevelAscent(max_iter=2),
        initial_policies="best-response",
        engine=Dask(client),
    )
    assert set(client.run(held).values()) == {0}
