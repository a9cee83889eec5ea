"""Shards: some of a problem's followers with all that concerns them alone."""

from __future__ import annotations

from fastincentive.followers.followers import Followers
from fastincentive.problem.part import ProblemPart

__all__ = ["ProblemShard"]


class ProblemShard(ProblemPart):
    """Followers first..last-1 of a problem.

    What is known of all followers stays as it is: bounds on the leader's reward, horizons and
    tolerances. The leader's reward itself stays behind, and so does a cost that only knows all
    payments together: steps ask for them. Values of all followers, such as
    ``IncentiveProblem.leader_value``, are not to be had here.

    Parameters
    ----------
    problem : ProblemPart
        All followers.
    first, last : int
    """

    def __init__(self, problem: ProblemPart, first: int, last: int) -> None:
        every = problem.followers
        followers = Followers([every[i] for i in range(first, last)], every.counts[first:last])
        super().__init__(
            followers,
            problem.leader_side.part(first, last, followers),
            problem.spending.part(first, last, followers),
            problem.cost_weight,
            problem.budget,
        )
        self.undiscounted = problem.undiscounted
