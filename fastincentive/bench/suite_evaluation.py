"""Evaluation and occupancy of a stochastic policy on robot grids."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastincentive.bench import cases
from fastincentive.bench import peers_evaluation as peers
from fastincentive.bench.case import Case
from fastincentive.bench.certificates import evaluation_residual, policy_matrix
from fastincentive.bench.timing import Contender, Trial
from fastincentive.followers.followers import Followers

__all__ = ["evaluation_cases"]

#: Size of the grid -> smallest profile that runs it.
PROFILE_OF = {6: "smoke", 30: "smoke", 100: "regular", 300: "regular", 1000: "large"}


def evaluation_cases(beside_peers: bool) -> list[Case]:
    """One policy, V, Q and occupancy; near-greedy at every discount, random at one."""
    found = []
    for size, profile in PROFILE_OF.items():
        for kind, gamma in (
            ("near-greedy", 0.95),
            ("near-greedy", 0.99),
            ("near-greedy", 0.999),
            ("random", 0.95),
            ("random", 0.999),
        ):
            least = profile
            if (kind, gamma) != ("near-greedy", 0.95):
                least = "large" if size >= 300 else "regular"
            if size == 1000 and kind == "random":
                continue
            name = f"evaluate/grid-{size}/{gamma:g}/{kind}"
            found.append(Case(name, least, partial(_evaluation, size, gamma, kind, beside_peers)))
    return found


def _evaluation(size: int, gamma: float, kind: str, beside_peers: bool) -> Trial:
    mdp, policy = cases.robot_grid(size, gamma), cases.policy(size, kind)
    followers, moves = Followers([mdp]), policy_matrix(mdp, policy)

    def read(found: Any) -> Any:
        return found.values[0], found.visits[0]

    ours = Contender(
        "fastincentive", lambda: followers.evaluate(followers.rewards, policy[None]), read=read
    )
    return Trial(
        [ours, *(peers.contenders(mdp, policy) if beside_peers else ())],
        lambda answer: evaluation_residual(mdp, policy, answer[0], answer[1], moves),
        peers.TOLERANCE,
    )
