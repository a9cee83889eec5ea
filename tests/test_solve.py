"""The loop and what it reports: the paper's experiment, statuses, callbacks, resuming."""

import numpy as np
import pytest
from conftest import assert_close, assert_identical

import fastincentive as fi
from fastincentive.certificates.stationarity import stationarity
from fastincentive.kernels import soft_bellman

STARTS = ["best-response", "leader-optimal", "third"]
PARAMETERIZATIONS = [fi.Direct(), fi.Softmax(0.05)]
# Enough room between the start and the kinks that a run takes some tens of iterations.
FAR = [1.5, 2.5]


@pytest.fixture(scope="module")
def paper():
    return fi.models.paper_gridworld()


@pytest.fixture(scope="module")
def example():
    return fi.models.example1()


@pytest.mark.slow
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=["direct", "softmax"])
@pytest.mark.parametrize("name", STARTS)
def test_paper_experiment(paper, name, parameterization):
    policies = fi.models.paper_initial_policies(paper) if name == "third" else name
    solution = fi.solve(paper, fi.BilevelAscent(), parameterization, initial_policies=policies)
    assert solution.success
    assert solution.status == fi.Status.CONVERGED
    assert solution.feasibility >= -1e-9
    assert solution.ascent.follower_gaps.max() <= 1e-4
    assert solution.ascent.stationarity <= 1e-3
    # Each figure is evaluated at exactly the point that is returned.
    recovered = paper.evaluate(solution.payments, solution.policies)
    assert_close(recovered.objective, solution.objective, 1e-12)
    last = paper.evaluate(solution.ascent.payments, solution.ascent.policies)
    assert_close(last.objective, solution.ascent.objective, 1e-12)
    assert_close(last.feasibility, solution.ascent.feasibility, 1e-12)
    worst = paper.evaluate(solution.payments, solution.pessimistic_policies)
    assert worst.feasibility >= -1e-9
    assert solution.pessimistic_objective <= solution.objective + 1e-12
    assert_close(solution.history.objective[-1], solution.ascent.objective, 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("start", ["best-response", "leader-optimal"])
@pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")
def test_defaults_close_every_gap_on_random_problems(seed, start):
    problem = fi.models.random_problem(n=2 + seed % 2, n_states=7, unavailable=0.2, rng=40 + seed)
    solution = fi.solve(problem, fi.BilevelAscent(), initial_policies=start)
    assert solution.ascent.follower_gaps.max() <= 1e-3
    assert solution.feasibility >= -1e-9
    assert solution.objective >= solution.ascent.objective - 1e-3


def test_example1_reaches_a_stationary_point():
    problem = fi.models.example1()
    solution = fi.solve(problem, initial_payments=[1.5, 2.5], refine=False)
    assert_close(solution.payments, [1.0, 2.0], 1e-9)
    assert_close(solution.objective, 3.0, 1e-9)
    assert_close(solution.pessimistic_objective, -3.0, 1e-9)
    # The search over regimes goes on to the best of the four.
    refined = fi.solve(problem, fi.BilevelAscent(), initial_payments=[1.5, 2.5])
    assert_close(refined.payments, [1.0, 0.0], 1e-9)
    assert_close(refined.objective, 4.0, 1e-9)
    assert_close(refined.refinement.objective, 3.0, 1e-9)
    assert_close(refined.refinement.payments, [1.0, 2.0], 1e-9)


@pytest.mark.parametrize(("slip", "discount"), [(0.0, 1.0), (0.1, 1.0), (0.0, 0.95)])
def test_total_reward_followers(slip, discount):
    problem = fi.models.gridworld("S.L #.G", slip=slip, discount=discount)
    for start in ("best-response", "leader-optimal"):
        solution = fi.solve(problem, initial_policies=start)
        assert solution.feasibility >= -1e-9
        assert solution.success


def test_not_converging_warns_and_can_raise(example):
    with pytest.warns(fi.ConvergenceWarning, match="max_iter"):
        solution = fi.solve(example, fi.BilevelAscent(max_iter=5), initial_payments=FAR)
    assert not solution.success
    assert solution.status == fi.Status.MAX_ITER
    assert solution.nit == 5
    assert len(solution.history) == 6
    with pytest.raises(fi.NotConvergedError, match="max_iter"):
        solution.raise_if_failed()


def test_steps_too_small_to_get_anywhere_are_reported():
    # With the steps frozen at nothing, no window of iterations gets anywhere.
    problem = fi.models.example1()
    method = fi.BilevelAscent(step=1e-9, payment_step=1e-9, tolerance=1e-12, max_iter=5000)
    with pytest.warns(fi.ConvergenceWarning, match="stalled|max_iter"):
        solution = fi.solve(problem, method, initial_policies="best-response")
    assert solution.status in (fi.Status.STALLED, fi.Status.MAX_ITER)


def test_callback_sees_each_iteration_and_may_stop(example):
    seen = []

    def callback(report):
        seen.append(report.evaluation.objective)
        if len(seen) == 4:
            raise StopIteration

    solution = fi.solve(example, fi.BilevelAscent(), callback=callback)
    assert solution.status == fi.Status.STOPPED
    assert not solution.success
    assert "callback" in solution.message
    assert seen == solution.history.objective


def test_stationarity_is_recorded_where_it_is_asked_for(example, tmp_path):
    seen = []
    settings = {"initial_payments": FAR, "stationarity_every": 4}
    whole = fi.solve(example, callback=seen.append, **settings)
    known = np.array(whole.history.stationarity)
    measured = np.arange(len(seen)) % 4 == 0
    assert np.array_equal(np.isfinite(known), measured)
    for report in seen[::8]:
        k = stationarity(example, report.payments, report.policies).measure
        assert k == known[report.iteration] == report.stationarity
    unasked = fi.solve(example, fi.BilevelAscent(), initial_payments=FAR)
    assert np.isinf(unasked.history.stationarity).all()

    # In files, and over an interruption.
    fi.save_solution(tmp_path / "solution.npz", whole)
    back = fi.load_solution(tmp_path / "solution.npz")
    assert np.array_equal(back.history.stationarity, known)

    def stop(report):
        if report.iteration == 9:
            raise StopIteration

    kept = {"checkpoint": tmp_path / "run.npz", "checkpoint_every": 5}
    fi.solve(example, callback=stop, **settings, **kept)
    assert_identical(fi.solve(example, **settings, **kept).history, whole.history)

    with pytest.raises(fi.InputError, match="stationarity_every: expected an integer >= 0"):
        fi.solve(example, stationarity_every=-1)
    with pytest.raises(fi.InputError, match="stationarity_every: expected 0 with HyperGradient"):
        fi.solve(example, fi.HyperGradient(), stationarity_every=1)


def test_resumed_run_equals_uninterrupted_run(example, tmp_path):
    whole = fi.solve(example, fi.BilevelAscent(), initial_payments=FAR)
    path = tmp_path / "run.npz"

    def stop_later(report, count=[0]):  # noqa: B006
        count[0] += 1
        if count[0] == 27:
            raise StopIteration

    fi.solve(
        example,
        initial_payments=FAR,
        callback=stop_later,
        checkpoint=path,
        checkpoint_every=10,
    )
    resumed = fi.solve(example, initial_payments=FAR, checkpoint=path, checkpoint_every=10)
    assert resumed.nit == whole.nit
    assert (resumed.payments == whole.payments).all()
    assert (resumed.ascent.theta == whole.ascent.theta).all()
    assert resumed.history.objective == whole.history.objective


def test_an_interrupted_run_goes_on_where_it_was(example, tmp_path):
    path = tmp_path / "run.npz"
    whole = fi.solve(example, fi.BilevelAscent(), initial_payments=FAR)

    def interrupt(report, count=[0]):  # noqa: B006
        count[0] += 1
        if count[0] == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fi.solve(example, initial_payments=FAR, callback=interrupt, checkpoint=path)
    resumed = fi.solve(example, initial_payments=FAR, checkpoint=path)
    assert resumed.history.objective == whole.history.objective
    assert (resumed.payments == whole.payments).all()


def test_fingerprints_tell_problems_apart():
    same = [fi.models.random_problem(rng=1).fingerprint() for _ in range(2)]
    assert same[0] == same[1]
    others = [
        fi.models.random_problem(rng=2).fingerprint(),
        fi.models.random_problem(rng=1, cost_weight=0.2).fingerprint(),
        fi.models.random_problem(rng=1, leader_discount=0.8).fingerprint(),
    ]
    assert len({same[0], *others}) == 4


def test_inputs_are_not_modified(example):
    payments = np.array([1.5, 2.5])
    policies = fi.best_response_policies(example, payments)
    kept = payments.copy(), policies.copy()
    fi.solve(example, initial_payments=payments, initial_policies=policies)
    assert (payments == kept[0]).all()
    assert (policies == kept[1]).all()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"problem": 3}, "problem"),
        ({"method": "fast"}, "method"),
        ({"parameterization": "direct"}, "parameterization"),
        ({"initial_payments": [-1.0, 0.0]}, "initial_payments"),
        ({"initial_payments": np.nan}, "initial_payments"),
        ({"initial_payments": [1.0]}, "initial_payments"),
        ({"initial_policies": "greedy"}, "initial_policies"),
        ({"initial_policies": np.ones((2, 4, 2))}, "initial_policies"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
    ],
)
def test_bad_arguments_are_named(example, arguments, name):
    with pytest.raises(fi.InputError, match=name):
        fi.solve(**({"problem": example} | arguments))


def test_progress_without_tqdm_names_the_extra(example, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tqdm", None)
    with pytest.raises(fi.MissingExtraError, match=r"fastincentive\[progress\]"):
        fi.solve(example, progress=True)


def test_solution_prints_a_short_table(example):
    text = str(fi.solve(example, initial_policies="best-response"))
    for word in ("payments", "objective", "feasibility", "stationarity", "converged"):
        assert word in text


def test_soft_responses_are_used_where_asked():
    # The soft reference of a follower is worth less than its best response.
    problem = fi.models.example1()
    x = np.array([0.5, 0.5])
    best = problem.followers.best_responses(problem.rewards(x))
    soft = np.empty(problem.followers.shape)
    soft_bellman.boltzmann_policies(problem.followers.packed, best.q_values, 0.5, soft)
    values = problem.followers.evaluate(problem.rewards(x), soft).values
    assert (
        problem.followers.start_values(values) < problem.followers.start_values(best.values)
    ).all()


def test_large_problems_are_refined_only_on_request(monkeypatch):
    problem = fi.models.example1()
    for part in ("solver.plan", "problem.memory"):
        monkeypatch.setattr(f"fastincentive.{part}.REFINED_STATES", 2)
    assert fi.solve(problem).refinement is None
    assert fi.solve(problem, refine=fi.RegimeAscent()).refinement is not None


@pytest.mark.parametrize("cost", [None, fi.QuadraticCost(0.0, 1.0), fi.ExpectedSpend()])
def test_a_follower_without_a_choice_is_not_paid(cost):
    transition = np.zeros((3, 2, 3))
    transition[0, :, [1, 2]] = [[0.8], [0.2]]
    transition[1, :, [0, 2]] = [[0.8], [0.2]]
    transition[2, :, 2] = 1.0
    mdp = fi.TabularMDP(
        transition,
        [[-0.3, 0.0], [-1.4, 0.0], [0.0, 0.0]],
        1.0,
        0,
        available=[[True, False], [True, False], [True, True]],
    )
    index = np.full((1, 3, 2), -1)
    index[0, 0, 0] = 0
    problem = fi.IncentiveProblem(
        [mdp], fi.LabelReward([0, 1, 2], [0.0, 1.0, 4.0]), fi.Payments.from_index(index), 0.8, 1.0,
        cost=cost,
    )  # fmt: skip
    solution = fi.solve(problem)
    assert solution.success
    assert_close(solution.payments, [0.0], 1e-4)
