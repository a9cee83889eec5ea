"""Mixing between tied actions: the leader's value is not linear in one follower's policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastincentive._arrays import FloatArray
from fastincentive.followers.policies import uniform_over
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.menus import Menus
from fastincentive.responses.mixture_climb import climbed_mixture, tied_actions
from fastincentive.responses.mixtures import best_mixture

__all__ = ["Mixing", "search_mixing"]


@dataclass(frozen=True)
class Mixing:
    """What the search over mixed best responses found.

    Attributes
    ----------
    searched : int
        Points at which some follower has tied actions in a state it visits.
    gain : float
        Best objective with mixing less the best without, >= 0. A local search: mixing may help
        more than this.
    payments : array (k,)
    policies : array (n, S, A)
        Best responses with the best objective found, mixed where that helped.
    objective : float
    """

    searched: int
    gain: float
    payments: FloatArray
    policies: FloatArray
    objective: float

    @property
    def helped(self) -> bool:
        """Whether mixing was better than every deterministic choice tried."""
        return self.gain > 0.0


def search_mixing(
    problem: IncentiveProblem,
    point: tuple[FloatArray, FloatArray],
    objective: float,
    others: Sequence[tuple[FloatArray, FloatArray]] = (),
    menus: Menus | None = None,
) -> Mixing:
    """Climb the leader's value over the mixtures of tied actions, from each point.

    Parameters
    ----------
    problem : IncentiveProblem
    point : payments (k,) and policies (n, S, A)
        The best without mixing.
    objective : float
        Its objective.
    others : sequence of payments and policies
        Best responses at which mixtures are searched.
    menus : Menus, optional
        All followers' responses: mixtures of those that tie are searched as well.
    """
    best = (objective, *point)
    searched = 0
    for payments, policies in others:
        tied = tied_actions(problem, payments, policies)
        if not (tied.sum(axis=2) > 1).any():
            continue
        searched += 1
        even = uniform_over(tied)
        # Half way between, mixtures are on both sides.
        for start in (policies, 0.5 * policies + 0.5 * even):
            found = climbed_mixture(problem, payments, tied, start)
            if found.objective > best[0] + 1e-9 * max(1.0, abs(best[0])):
                best = (found.objective, payments, found.policies)
    if menus is not None:
        further = best_mixture(problem, best[1], best[2], best[0], menus)
        if further is not None:
            best = (further.objective, further.payments, further.policies)
    return Mixing(searched, best[0] - objective, best[1], best[2], best[0])
