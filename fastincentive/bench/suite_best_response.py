"""Best responses on robot grids: cold beside other packages, and warm beside cold."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from typing import Any

from fastincentive._arrays import FloatArray
from fastincentive.bench import cases
from fastincentive.bench import peers_best_response as peers
from fastincentive.bench.case import Case, available
from fastincentive.bench.certificates import bellman_residual, pair_matrix
from fastincentive.bench.random_mdps import KINDS
from fastincentive.bench.timing import Contender, Trial
from fastincentive.followers.best_responses import ResponseMemory
from fastincentive.followers.followers import Followers

__all__ = ["cold_cases", "random_cases", "warm_cases"]

#: Size of the grid -> smallest profile that runs it.
PROFILE_OF = {6: "smoke", 30: "smoke", 100: "regular", 300: "regular", 1000: "large"}


#: States of random graphs: on both sides of where sparse routes begin.
RANDOM_SIZES = (300, 1022)


def _names(kind: str) -> Iterator[tuple[str, str, int, float]]:
    for size, profile in PROFILE_OF.items():
        for gamma in cases.DISCOUNTS:
            least = profile
            if gamma != cases.DISCOUNTS[0]:
                least = "large" if size >= 300 else "regular"
            yield f"{kind}/grid-{size}/{gamma:g}", least, size, gamma


def cold_cases(beside_peers: bool) -> list[Case]:
    """Best responses from nothing."""
    return [
        Case(name, profile, partial(_cold, size, gamma, beside_peers))
        for name, profile, size, gamma in _names("best-response")
    ]


def random_cases() -> list[Case]:
    """Best responses on random graphs of many kinds."""
    return [
        Case(
            f"best-response-random/{kind}-{states}/{gamma:g}",
            "smoke" if (kind, states, gamma) == ("sparse", 300, 0.95) else "regular",
            partial(_random, kind, states, gamma),
        )
        for kind in KINDS
        for states in RANDOM_SIZES
        for gamma in (0.95, 0.999, 0.9999)
    ]


def warm_cases() -> list[Case]:
    """Best responses after payments moved by 1e-3, in a walk and once, beside cold ones."""
    return [
        Case(name, profile, partial(_warm, size, gamma))
        for name, profile, size, gamma in _names("best-response-warm")
    ]


def _read(found: Any) -> Any:
    return found.values[0], found.actions[0]


def _cold(size: int, gamma: float, beside_peers: bool) -> Trial:
    mdp = cases.robot_grid(size, gamma)
    followers, pairs = Followers([mdp]), pair_matrix(mdp)
    rewards = followers.rewards
    builders = [
        lambda: Contender("fastincentive", lambda: followers.best_responses(rewards), read=_read)
    ]
    if beside_peers:
        # By default the residual ends near rounding; the peers stop at the tolerance.
        loose = partial(followers.best_responses, rewards, tolerance=peers.TOLERANCE)
        builders += [
            lambda: Contender(f"fastincentive, {peers.TOLERANCE:g}", loose, read=_read),
            partial(peers.quantecon, mdp),
            partial(peers.mdpsolver_policy_iteration, mdp),
            partial(peers.mdpsolver_policy_iteration, mdp, "gs"),
            partial(peers.jax_value_iteration, mdp),
        ]
    contenders, skipped = available(builders)
    return Trial(
        contenders,
        lambda answer: bellman_residual(mdp, answer[0], answer[1], pairs=pairs),
        peers.TOLERANCE,
        skipped,
    )


def _random(kind: str, states: int, gamma: float) -> Trial:
    """Residuals count as shares of the largest value: rewards differ in size."""
    mdp = cases.random_graph(kind, states, gamma)
    followers, pairs = Followers([mdp]), pair_matrix(mdp)
    run = partial(followers.best_responses, followers.rewards)
    contenders, skipped = available(
        [
            lambda: Contender("fastincentive", run, read=_read),
            partial(peers.policy_iteration, mdp),
            partial(peers.quantecon, mdp),
        ]
    )

    def error(answer: Any) -> float:
        size = max(1.0, float(abs(answer[0]).max()))
        return bellman_residual(mdp, answer[0], answer[1], pairs=pairs) / size

    return Trial(contenders, error, peers.TOLERANCE, skipped)


def _warm(size: int, gamma: float) -> Trial:
    """Rewards of a walk: the payments at both lesser goals move by 1e-3 up or down at each call."""
    mdp = cases.robot_grid(size, gamma)
    followers, pairs = Followers([mdp]), pair_matrix(mdp)
    walk = cases.payment_walk(mdp, size)
    memory, once = ResponseMemory(), ResponseMemory()
    followers.best_responses(next(walk), memory=once)
    for _ in range(8):
        followers.best_responses(next(walk), memory=memory)

    def read(found: Any) -> Any:
        rewards, answer = found
        return answer.values[0], answer.actions[0], rewards[0]

    def error(answer: Any) -> float:
        values, actions, reward = answer
        return bellman_residual(mdp, values, actions, reward, pairs)

    def cold(rewards: FloatArray) -> Any:
        return rewards, followers.best_responses(rewards)

    def warm(rewards: FloatArray) -> Any:
        return rewards, followers.best_responses(rewards, memory=memory)

    def second(given: tuple[FloatArray, ResponseMemory]) -> Any:
        return given[0], followers.best_responses(given[0], memory=given[1])

    # Each second call has a copy of the memory, which has seen the first and no others.
    after_one = cases.moved_rewards(mdp, size)[None]
    return Trial(
        [
            Contender("warm", warm, lambda: next(walk), read),
            Contender("second call", second, lambda: (after_one, deepcopy(once)), read),
            Contender("cold", cold, lambda: next(walk), read),
        ],
        error,
        peers.TOLERANCE,
    )
