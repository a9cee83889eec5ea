"""Sweeps: the same bits on any executor, in order, and what fails or dies is reported."""

import copy
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace

import numba
import numpy as np
import pytest
from conftest import assert_identical, random_game, random_policy

import fastincentive as fi
from fastincentive.errors import InputError, MissingExtraError
from fastincentive.studies.sweep_workers import Parcel

SEARCH = fi.RegimeAscent(rounds=1, directions=1)


# Functions of a problem that other processes can import


def draw(problem, rng=None, scale=1.0):
    """A number of the item's own stream."""
    return scale * np.random.default_rng(rng).random()


def die(problem, harmless=False):
    if harmless:
        return problem.n
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(problem):
    time.sleep(60.0)


def threads(problem):
    return numba.get_num_threads()


@pytest.fixture(scope="module")
def problem():
    return random_game(np.random.default_rng(0), 2, 4, 2, 0.9, unavailable=0.2).problem()


@pytest.fixture(scope="module")
def grid():
    return fi.models.paper_gridworld()


# Executors


@pytest.mark.slow
def test_the_same_bits_in_threads_and_processes(problem, grid):
    problems = [problem, grid.replace(cost_weight=0.2), problem, grid, problem]
    settings = [
        {"initial_payments": 0.5},
        {"initial_payments": [3.0, 1.0]},
        {"initial_payments": [1.0, 2.0, 3.0]},  # too many
        {},
        {"rng": 4, "method": fi.RegimeAscent(rounds=2, rng=1)},
    ]

    def run(executor=None, **more):
        return fi.sweep(problems, settings, executor=executor, method=SEARCH, rng=5, **more)

    here = run()
    assert [item.error is None for item in here.items] == [True, True, False, True, True]
    with ThreadPoolExecutor(2) as pool:
        threaded = run(pool)
        wide = run(pool, threads_per_item=100)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        apart = run(pool)
        (lambda_,) = fi.sweep(problem, executor=pool, solve=lambda problem: 1).items
        killed = fi.sweep(
            problem, [{"harmless": k < 1} for k in range(4)], executor=pool, solve=die
        )
        # The pool is of no more use.
        after = fi.sweep(problem, [{}, {}], executor=pool, solve=draw)
    for found in (threaded, wide, apart):
        for ours, theirs in zip(here.items, found.items, strict=True):
            assert ours.index == theirs.index
            assert_identical(ours.settings, {**theirs.settings, "method": ours.settings["method"]})
            assert_identical(ours.solution, theirs.solution)
            assert theirs.seconds >= 0.0
        error = found.items[2].error
        assert error[:2] == here.items[2].error[:2] == ("InputError", error.message)
        assert "initial_payments: expected a number or shape (1,), got (3,)" in error.message
        assert "in solve" in error.traceback
    assert "pickle" in lambda_.error.message
    assert len(killed.items) == 4
    assert killed.failures[-1].error.type == "BrokenProcessPool"
    assert "spawn" in killed.failures[-1].error.message
    assert np.isnan(killed.failures[-1].seconds)
    for item in killed.items:  # what was done before stays
        assert (item.error is None) == (item.solution == 2)
    assert [item.error.type for item in after.items] == ["BrokenProcessPool"] * 2
    with pytest.raises(ValueError, match=r"(?s)no item was solved; .*BrokenProcessPool"):
        _ = after.best


def test_order_does_not_depend_on_who_is_first(problem):
    done = threading.Event()

    def wait(problem, k):
        if k == 0:
            assert done.wait(30.0)
        if k == 2:
            done.set()
        return k

    with ThreadPoolExecutor(2) as pool:
        found = fi.sweep(problem, [{"k": k} for k in range(3)], executor=pool, solve=wait)
    assert found.solutions == [0, 1, 2]


def test_an_interrupt_cancels_what_has_not_begun(problem):
    seen, ended = [], threading.Event()

    def interrupt(problem, k):
        seen.append(k)
        if k == 0:
            raise KeyboardInterrupt
        ended.wait(30.0)

    settings = [{"k": k} for k in range(5)]
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(KeyboardInterrupt):
            fi.sweep(problem, settings, executor=pool, solve=interrupt)
        ended.set()
    assert max(seen) <= 1
    with pytest.raises(KeyboardInterrupt):
        fi.sweep(problem, settings, solve=interrupt)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_interrupt_keeps_what_is_finished(problem, workers):
    def interrupt(problem, k):
        if k == 3:
            raise KeyboardInterrupt
        if k == 1:
            raise ValueError("one")
        return k

    settings = [{"k": k} for k in range(6)]
    with ThreadPoolExecutor(1) as pool, pytest.raises(fi.Interrupted, match="3 of 6") as caught:
        fi.sweep(problem, settings, executor=pool if workers else None, solve=interrupt)
    assert isinstance(caught.value, KeyboardInterrupt)
    assert [item.index for item in caught.value.results.items] == [0, 1, 2]
    assert caught.value.results.solutions == [0, 2]


def test_an_interrupt_ends_processes(problem):
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        pool.submit(os.getpid).result()  # it is there
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            fi.sweep(problem, [{}] * 3, executor=pool, solve=sleep)
        timer.join()
    assert time.monotonic() - began < 30.0


def test_what_the_executor_cancels_is_reported(problem):
    class Lazy(Executor):
        def submit(self, function, /, *args):
            future = Future()
            if args[2]["rng"] == 0:
                future.set_result(function(*args))
            else:
                future.cancel()
                future.set_running_or_notify_cancel()
            return future

    found = fi.sweep(problem, [{"rng": 0}, {"rng": 1}], executor=Lazy(), solve=draw)
    assert found.items[0].error is None
    assert found.items[1].error.type == "CancelledError"


def test_threads_per_item(problem):
    if numba.config.DISABLE_JIT or numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("no second thread")
    with ThreadPoolExecutor(1) as pool:
        assert fi.sweep(problem, solve=threads, executor=pool).solutions == [1]
        two = fi.sweep(problem, solve=threads, executor=pool, threads_per_item=2)
    assert two.solutions == [2]
    assert fi.sweep(problem, solve=threads).solutions == [numba.get_num_threads()]


# Problems and settings


def test_pairs(problem):
    other = problem.replace(cost_weight=0.7)

    def show(problem, k=0):
        return problem.cost_weight, k

    w, v = problem.cost_weight, 0.7
    for problems, settings, expected in (
        (problem, None, [(w, 0)]),
        (problem, {"k": 1}, [(w, 1)]),
        (problem, [{"k": 1}, {}], [(w, 1), (w, 0)]),
        ([problem, other], None, [(w, 0), (v, 0)]),
        ((problem, other), {"k": 1}, [(w, 1), (v, 1)]),
        ([problem, other], [{"k": 1}, {"k": 2}], [(w, 1), (v, 2)]),
    ):
        assert fi.sweep(problems, settings, solve=show).solutions == expected
    found = fi.sweep(problem, [{"k": 1}, {}], solve=show, k=5)
    assert found.solutions == [(w, 1), (w, 5)]
    assert [item.settings for item in found.items] == [{"k": 1}, {"k": 5}]


def test_seeds(problem):
    children = np.random.SeedSequence(7).spawn(3)
    expected = [int(child.generate_state(1, np.uint64)[0]) for child in children]
    found = fi.sweep(problem, [{}, {"rng": 2}, {}], solve=draw, rng=7)
    seeds = [item.settings["rng"] for item in found.items]
    assert seeds == [expected[0], 2, expected[2]]
    assert found.solutions == [draw(problem, seed) for seed in seeds]
    # Generators are no better shared than copied.
    shared = np.random.default_rng(3)
    several = fi.sweep(problem, [{"rng": shared}, {"rng": shared}], solve=draw)
    assert len(set(several.solutions)) == 2
    assert several.solutions == [draw(problem, item.settings["rng"]) for item in several.items]
    again = fi.sweep(problem, [{}, {}], solve=draw, rng=np.random.default_rng(3))
    assert again.solutions == several.solutions
    assert "rng" not in fi.sweep(problem, solve=draw).items[0].settings


@pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")
@pytest.mark.parametrize("kind", ["trajectories", "random payments"])
def test_each_item_draws_numbers_of_its_own(kind):
    problem = fi.models.random_problem(2, 3, 2, rng=0)
    if kind == "trajectories":
        method = fi.BilevelAscent(gradient=fi.Reinforce(trajectories=10), max_iter=2)
    else:
        method = fi.ZerothOrder(evaluations=22, pairs=2)

    def found(rng=0, method=method, executor=None):
        settings = {"method": method, "refine": False, "polish": False, "executor": executor}
        items = fi.sweep(problem, [{}] * 4, rng=rng, **settings).items
        assert all(item.error is None for item in items)
        return [item.solution.ascent.payments.tolist() for item in items]

    here = found()
    assert len({str(each) for each in here}) == 4
    assert found(rng=1) != here
    with ThreadPoolExecutor(2) as pool:
        assert found(executor=pool) == here
    if kind == "random payments":
        # A generator that the method brings along is no better shared than copied.
        own = [found(None, replace(method, rng=np.random.default_rng(3))) for _ in range(2)]
        assert len({str(each) for each in own[0]}) == 4
        assert own[0] == own[1]
        with ThreadPoolExecutor(2) as pool:
            assert found(None, replace(method, rng=np.random.default_rng(3)), pool) == own[0]


def test_errors(problem, monkeypatch):
    for arguments, message in (
        ((3,), "problems: expected an IncentiveProblem or a sequence, got 3"),
        (([],), "problems: expected at least one, got none"),
        (([problem, 3],), r"problems\[1\]: expected an IncentiveProblem, got int"),
        ((problem, 3), "settings: expected a mapping or a sequence, got 3"),
        ((problem, []), "settings: expected at least one dict, got none"),
        ((problem, [{}, 3]), r"settings\[1\]: expected a mapping, got int"),
        ((problem, [{3: 4}]), "settings: expected dicts of keyword arguments, got dict at item 0"),
        (([problem] * 2, [{}] * 3), "settings: expected one dict for each of 2 problems, got 3"),
        (
            (problem, [{}, {"no": 1}]),
            "settings: expected keyword arguments of solve, got .* item 1",
        ),
    ):
        with pytest.raises(InputError, match=message):
            fi.sweep(*arguments)
    for arguments, message in (
        ({"executor": 3}, "executor: expected an Executor, got int"),
        ({"solve": 3}, "solve: expected a function"),
        ({"threads_per_item": 0}, "threads_per_item: expected a positive integer, got 0"),
        ({"checkpoint": "file"}, "checkpoint: expected one file for each item"),
    ):
        with pytest.raises(InputError, match=message):
            fi.sweep(problem, [{}, {}], **arguments)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(MissingExtraError, match=r"fastincentive\[progress\]"):
        fi.sweep(problem, progress=True)


# What is returned


def test_best_and_table(problem):
    found = fi.sweep(
        problem,
        [{"initial_payments": x} for x in (0.0, np.arange(3.0), 2.0)],
        method=SEARCH,
        tie_breaking=fi.StrongStackelberg(),
    )
    assert [item.index for item in found.failures] == [1]
    assert len(found.solutions) == 2
    assert found.best is found.best_item.solution
    assert found.best.objective == max(each.objective for each in found.solutions)
    item = found.best_item
    assert_identical(fi.solve(problem, **item.settings), item.solution)
    lines = str(found).splitlines()
    assert lines[0].split()[:3] == ["item", "initial_payments", "objective"]
    assert "method" not in lines[0]  # the same for all
    assert lines[1].endswith("converged")
    assert "InputError: initial_payments: expected" in lines[2]
    assert "[0. 1. 2.]" in lines[2]
    other = str(fi.sweep(problem, [{"rng": 1}, {"rng": 2}], solve=draw))
    assert other.splitlines()[1].endswith("done")


def test_progress(problem, capsys):
    pytest.importorskip("tqdm")
    fi.sweep(problem, [{}, {}], solve=draw, progress=True)
    assert "0/2" in capsys.readouterr().err


# What is sent


def sent(value):
    return pickle.loads(pickle.dumps(value))


def test_a_problem_is_pickled_without_what_follows_from_it(grid):
    grid.evaluate(1.0, fi.best_response_policies(grid, 1.0))
    size = len(pickle.dumps(grid))
    assert size < 25_000
    other = sent(grid)
    assert other.fingerprint() == grid.fingerprint()
    assert len(pickle.dumps(other)) < size + 500
    assert other.passes.followers is other.followers
    assert other.passes.leader is other.leader
    assert other.grid == grid.grid


def test_models_stay_shared_and_read_only():
    mdp = random_game(np.random.default_rng(1), 1, 4, 2, 1.0).followers[0].mdp()
    followers = sent(fi.Followers([mdp, mdp.replace(initial=0)]))
    assert followers.n_models == 1
    for each in followers:
        model = each.transition
        for array in (each.reward, each.initial, model.successor, model.probability):
            assert not array.flags.writeable
    before = fi.Followers([mdp, mdp.replace(initial=0)])
    for one, two in zip(before.packed, followers.packed, strict=True):
        assert_identical(one, two)
        assert one.flags.writeable == two.flags.writeable
    assert_identical(before.rewards, followers.rewards)
    assert_identical(sent(mdp).discount, mdp.discount)


def test_counts_of_types_are_sent():
    mdp = random_game(np.random.default_rng(1), 1, 4, 2, 0.9).followers[0].mdp()
    followers = fi.Followers([mdp, mdp.replace(initial=0)], counts=[3, 5])
    leader, paid = fi.CountReward([0, 1, 1, 0], np.arange(9.0)), fi.Payments.everywhere()
    problem = fi.IncentiveProblem(followers, leader, paid, leader_discount=0.8)
    other = sent(problem)
    assert other.followers.population == 8
    assert other.fingerprint() == problem.fingerprint()
    assert_identical(vars(other.payments), vars(problem.payments))


@pytest.mark.parametrize("make", [sent, copy.deepcopy])
def test_copies_are_the_same_problem(make):
    labels = np.arange(5) % 2
    leader = (
        fi.CountReward(labels, [0.0, 1.0, 3.0, 1.0])
        + fi.AdditiveReward(np.arange(5.0))
        + fi.LabelReward(labels, np.arange(8.0).reshape(2, 2, 2))
    )
    game = random_game(np.random.default_rng(2), 3, 5, 2, 0.9)
    problem = game.problem(fi.Payments.everywhere(upper=3.0, budget=5.0), leader)
    other = make(problem)
    policies = random_policy(np.random.default_rng(3), problem.followers.available)
    assert_identical(problem.leader_gradient(policies), other.leader_gradient(policies))
    assert_identical(problem.evaluate(0.1, policies), other.evaluate(0.1, policies))
    assert other.budget == 5.0


def test_a_problem_is_pickled_and_unpickled_once(problem, monkeypatch):
    parcel = Parcel(problem)
    one, two = sent(parcel), sent(parcel)
    assert one is two
    assert one.problem.fingerprint() == problem.fingerprint()
    assert len(pickle.dumps([parcel, parcel])) < 1.1 * len(pickle.dumps(parcel))
    # What pickle cannot do is left to those who can, or to say so.
    paid = fi.Payments.at_states([[0], []])
    game = random_game(np.random.default_rng(0), 2, 4, 2, 0.9)
    odd = game.problem(paid, cost=fi.CustomCost(lambda x: x.sum(), np.ones_like))
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        pickle.dumps(Parcel(odd))
