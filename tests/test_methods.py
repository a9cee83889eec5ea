"""The seam for methods: all follow it, mismatches are explained, ``solve`` takes any of them."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from conftest import EXACT, assert_close

import fastincentive as fi
from fastincentive.followers.followers import Followers
from fastincentive.methods import Capabilities, Method, StepReport
from fastincentive.methods._starts import best_response_policies
from fastincentive.solution import MESSAGES, Status

METHODS = {
    "bilevel-ascent": fi.BilevelAscent(max_iter=30),
    "joint multiplier": fi.BilevelAscent(multiplier="joint", max_iter=30),
    "reinforce": fi.BilevelAscent(gradient=fi.Reinforce(50), max_iter=10),
    "value-penalty": fi.ValuePenalty(max_iter=30),
    "hyper-gradient": fi.HyperGradient(max_iter=20, continuation=(0.3,)),
    "zeroth-order": fi.ZerothOrder(evaluations=60),
    "regime-ascent": fi.RegimeAscent(),
}

pytestmark = pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")


@pytest.fixture(scope="module")
def problem():
    return fi.models.random_problem(2, 4, 2, rng=3, n_payments=1, leader_discount=0.8)


def started(problem, method):
    x = np.full(problem.payments.size, 0.5)
    policies = best_response_policies(problem, x) if method.capabilities.uses_policies else None
    return method.init(problem, fi.Direct(), x, policies)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_method_can_be_stepped(problem, method):
    state = started(problem, method)
    assert state.iteration == 0
    status, seen = None, []
    while status is None:
        state, report = method.step_from(problem, fi.Direct(), state, seen.append)
        status = method.terminate(report)
        assert isinstance(report, StepReport)
        assert report.payments.shape == (problem.payments.size,)
        assert np.isfinite(report.evaluation.objective)
        assert state.iteration <= method.most_iterations + 1
    assert method.messages[status]
    ascent = method.finish(report)
    if ascent is None:
        assert method.capabilities.searches_regimes
    else:
        assert_close(ascent.objective, report.evaluation.objective, EXACT)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_solve_keeps_every_iterate_once(problem, method):
    seen = []
    found = fi.solve(problem, method, refine=False, callback=seen.append, initial_payments=0.5)
    assert [report.iteration for report in seen] == sorted({r.iteration for r in seen})
    assert len(found.history) == len(seen)
    assert found.nit == seen[-1].iteration
    assert_close(found.history.objective[-1], seen[-1].evaluation.objective, EXACT)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_callback_can_stop_every_method(problem, method):
    def stop(report):
        raise StopIteration

    found = fi.solve(problem, method, refine=False, callback=stop, initial_payments=0.5)
    assert len(found.history) == 1
    if not method.capabilities.searches_regimes:  # its one round was the last one, too
        assert found.status == Status.STOPPED


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_what_a_method_cannot_do_is_explained(problem, method, tmp_path):
    can, name = method.capabilities, type(method).__name__
    path = tmp_path / "run.npz"
    if can.keeps_state:
        fi.solve(problem, method, refine=False, checkpoint=path)
        assert path.exists()
    else:
        with pytest.raises(fi.InputError, match=f"checkpoint: expected none with {name}"):
            fi.solve(problem, method, checkpoint=path)
    if can.shards is False:
        with pytest.raises(fi.InputError, match=f"engine: expected none with {name}"):
            fi.solve(problem, method, engine=fi.engines.Local())
    if can.shards is not True:
        with pytest.raises(fi.InputError, match="expected"):
            method.check_shards(2)
    method.check_shards(1)
    with pytest.raises(fi.InputError, match="shards: expected a positive integer"):
        method.check_shards(0)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_types_that_a_method_does_not_know_are_refused(method):
    mdp = fi.models.random_problem(1, rng=0).followers[0]
    reward = fi.AdditiveReward(np.ones(mdp.n_states))
    types = fi.IncentiveProblem(
        Followers([mdp], [3]), reward, fi.Payments.everywhere(), leader_discount=0.9
    )
    if isinstance(method.capabilities.types, str):
        with pytest.raises(fi.InputError, match=f"counts of 1 for {method.capabilities.types}"):
            method.check_suits(types)
    else:
        method.check_suits(types)


# -- random numbers ------------------------------------------------------------------------------


def test_rng_is_refused_where_nothing_is_drawn(problem):
    with pytest.raises(fi.InputError, match="rng: expected None, got 3: BilevelAscent"):
        fi.solve(problem, refine=False, rng=3)
    with pytest.raises(fi.InputError, match="rng: expected None, an integer >= 0"):
        fi.solve(problem, rng="seed")


def test_rng_stands_in_for_the_methods_own(problem):
    def run(method, rng=None):
        return fi.solve(problem, method, refine=False, rng=rng).history.payments

    for method in (METHODS["reinforce"], METHODS["zeroth-order"]):
        own = run(method.drawing_from(7))
        assert all(map(np.array_equal, run(method, 7), own))
        assert not all(map(np.array_equal, run(method, 8), own))
        drawn = run(method, np.random.default_rng(7))
        assert all(map(np.array_equal, drawn, run(method, np.random.default_rng(7))))


def test_rng_reaches_the_search_that_refines(problem):
    seeds = [fi.solve(problem, rng=rng).objective for rng in (0, np.random.default_rng(1))]
    assert_close(seeds[0], fi.solve(problem).objective, EXACT)  # its own seed is 0
    assert np.isfinite(seeds[1])


def test_seed_is_the_old_name_of_reinforces_rng():
    with pytest.warns(DeprecationWarning, match="seed is now called rng"):
        old = fi.Reinforce(50, seed=4)
    assert old == fi.Reinforce(50, rng=4)
    assert replace(old, trajectories=60).rng == 4
    drawn = fi.Reinforce(50, rng=np.random.default_rng(0))
    assert isinstance(drawn.rng, int)
    assert fi.Reinforce(50, rng=None) != fi.Reinforce(50, rng=None)


def test_objective_is_the_old_name_of_tie_breaking(problem):
    with pytest.warns(DeprecationWarning, match="objective is now called tie_breaking"):
        old = fi.solve(problem, objective=fi.WeakStackelberg())
    assert old.objective == fi.solve(problem, tie_breaking=fi.WeakStackelberg()).objective
    with pytest.raises(fi.InputError, match="objective: expected none beside tie_breaking"):
        fi.solve(problem, tie_breaking=fi.WeakStackelberg(), objective=fi.WeakStackelberg())


# -- a method of one's own -----------------------------------------------------------------------


@dataclass(frozen=True)
class Grid(Method):
    """The best of evenly spaced equal payments, one point an iteration: all there is to add."""

    points: int = 5
    most: float = 2.0

    @property
    def capabilities(self):
        return Capabilities(uses_policies=False, keeps_state=False)

    @property
    def most_iterations(self):
        return self.points

    def init(self, problem, parameterization, payments, policies):
        return Place(0)

    def step_from(self, problem, parameterization, state, observe=None):
        x = np.full(problem.payments.size, self.most * state.iteration / (self.points - 1))
        policies = best_response_policies(problem, x)
        evaluation = problem.evaluate(x, policies)
        report = StepReport(
            iteration=state.iteration + 1,
            theta=policies,
            policies=policies,
            payments=x,
            evaluation=evaluation,
            multipliers=np.zeros(problem.n),
            residual=0.0,
            converged=state.iteration + 1 == self.points,
        )
        return Place(state.iteration + 1), report


@dataclass(frozen=True)
class Place:
    iteration: int


def test_a_method_of_ones_own_is_solved_like_any_other(problem):
    found = fi.solve(problem, Grid(), refine=False, polish=False)
    assert found.success
    assert found.message == MESSAGES[Status.CONVERGED]
    assert len(found.history) == found.nit == 5
    assert_close(found.payments, np.full(problem.payments.size, 2.0), EXACT)
    assert fi.solve(problem, Grid()).objective >= found.objective  # refined like any other
    with pytest.raises(fi.InputError, match="checkpoint: expected none with Grid"):
        fi.solve(problem, Grid(), checkpoint="run.npz")
    with pytest.raises(fi.InputError, match="method: expected a Method, got str"):
        fi.solve(problem, "grid")
