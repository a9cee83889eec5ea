"""RegimeAscent: exact line searches over the followers' regimes, until nothing can be improved.

Between two breakpoints of a follower's best response the leader's value is constant and payments
only cost, so the best payment on a line is at a breakpoint, and the others' marginals price all
of them at once. Followers take turns; pairs of them move together where there are few.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np

from fastincentive._arrays import FloatArray
from fastincentive._checks import check_fields, checked
from fastincentive._random import Rng, check_rng
from fastincentive.errors import invalid
from fastincentive.followers.parameterization import Parameterization
from fastincentive.methods._regime_search import SeparateSearch, SharedSearch, search_of
from fastincentive.methods._starts import best_response_policies
from fastincentive.methods.base import Capabilities, Method, Observer, Searched, StepReport
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.recovery import Recovered, recover
from fastincentive.solution import MESSAGES, Status

__all__ = ["RegimeAscent"]


@dataclass(frozen=True)
class RegimeAscent(Method):
    """Coordinate and direction line search over regimes, exact and monotone.

    Parameters
    ----------
    starts : int
        Random starts besides the given point and no payments at all.
    pairs : int
        With at most this many followers, pairs of them are moved together as well: two followers
        that only pay off jointly are no trap then.
    directions : int
        Followers with several payments: random directions tried from each point reached.
    rounds : int
        Followers with several payments: how often new lines through the point are added.
    repriced : int
        Followers with several payments: how many of their best entries are bought at the cheapest
        payments there are (a linear programme each) in each round.
    rng : None, int or Generator
        Source of the random starts and directions.

    Notes
    -----
    The result is unilaterally optimal: given the others' responses, no follower has a better entry
    on any line that was searched; with one payment each that is any payment at all. Costs are taken
    to grow with the payments, so that each response is bought where it begins.
    """

    messages: ClassVar[dict[Status, str]] = MESSAGES | {
        Status.CONVERGED: "converged: no payment on any line searched is better",
    }

    starts: int = 8
    pairs: int = 6
    directions: int = 8
    rounds: int = 20
    repriced: int = 4
    rng: Rng = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        check_fields(self)
        for name in ("starts", "pairs", "directions", "rounds", "repriced"):
            value = getattr(self, name)
            if not (isinstance(value, (int, np.integer)) and value >= 0):
                raise invalid(name, "an integer >= 0", repr(value))
        check_rng(self.rng)

    @property
    def capabilities(self) -> Capabilities:
        """It is the search that refines other methods' answers."""
        return Capabilities(
            uses_policies=False,
            keeps_state=False,
            types="a search over regimes",
            draws=True,
            searches_regimes=True,
        )

    @property
    def most_iterations(self) -> int:
        """Rounds, of both starts where payments are shared."""
        return 2 * max(self.rounds, 1)

    def drawing_from(self, rng: Rng) -> RegimeAscent:
        """Return the method with another source of random starts and directions."""
        return replace(self, rng=rng)

    @checked
    def init(
        self,
        problem: IncentiveProblem,
        parameterization: Parameterization,
        payments: FloatArray,
        policies: FloatArray | None,
    ) -> RegimeState:
        """Stand at best responses to the payments, ties broken for the leader."""
        first = best_response_policies(problem, payments)
        start = recover(problem, payments, first, polish=False)
        search = search_of(problem, self, start.payments, start.policies)
        return RegimeState(0, start, search, start.evaluation.objective)

    @checked
    def step_from(
        self,
        problem: IncentiveProblem,
        parameterization: Parameterization,
        state: RegimeState,
        observe: Observer | None = None,
    ) -> tuple[RegimeState, StepReport]:
        """Search one round on."""
        search, before = state.search, state.objective
        if not search.done:
            search.advance()
        found = search.point()
        followers, rewards = problem.followers, problem.rewards(found.payments)
        own = followers.start_values(
            followers.evaluate(rewards, found.policies, checked=True).values
        )
        best = followers.start_values(followers.best_responses(rewards).values)
        leader = problem.leader_pass(found.policies, gradient=False)
        cost = problem.cost_pass(found.payments, found.policies, gradient=False).value
        report = StepReport(
            iteration=state.iteration + 1,
            theta=found.policies,
            policies=found.policies,
            payments=found.payments,
            evaluation=problem.assemble(leader, cost, own, best),
            multipliers=np.zeros(problem.n),
            residual=max(found.objective - before, 0.0) if np.isfinite(before) else np.inf,
            converged=search.done,
            searched=Searched(self, state.start, found),
        )
        following = state._replace(iteration=state.iteration + 1, objective=found.objective)
        return following, report

    def finish(self, report: StepReport) -> None:
        """Keep nothing: where the search ends is the solution itself."""


class RegimeState(NamedTuple):
    """Where the search stands."""

    iteration: int
    start: Recovered
    search: SeparateSearch | SharedSearch  # goes on as it is advanced
    objective: float  # after the last round
