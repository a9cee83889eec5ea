"""The leader's value and gradient, and its full joint value function."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from fastincentive.bench import cases, peers_leader
from fastincentive.bench.case import Case, available
from fastincentive.bench.leader_twin import (
    LeaderAnswer,
    joint_residual,
    leader_error,
    tail_horizon,
    twin,
)
from fastincentive.bench.timing import Contender, Trial

__all__ = ["TOLERANCE", "leader_cases"]

#: Largest error of value and gradient, relative to their largest magnitude, at least 1.
TOLERANCE = 1e-10
#: Largest relative residual of a joint value function.
JOINT_TOLERANCE = 1e-12
#: (followers, size of the grid) -> smallest profile that runs it.
PROFILE_OF = {(2, 6): "smoke", (2, 15): "regular", (2, 30): "regular", (3, 6): "regular"}
DISCOUNTS = (0.95, 0.99)
#: The Kronecker system has this many joint states at most.
_KRONECKER = 5_000


def leader_cases(beside_peers: bool) -> list[Case]:
    """Value and gradient, value alone, and (beside peers) all joint values."""
    found = []
    kinds: list[tuple[str, Callable[..., Trial]]] = [
        ("leader-gradient", _gradient),
        ("leader-value", _value),
    ]
    if beside_peers:
        kinds.append(("joint-values", _joint))
    for what, build in kinds:
        for (n, size), profile in PROFILE_OF.items():
            if (what, size) == ("joint-values", 30):
                continue  # the case of the value alone has this one
            for gamma in DISCOUNTS:
                for kind in ("near-greedy", "random"):
                    least = profile
                    if (gamma, kind) != (0.95, "near-greedy"):
                        least = "regular" if kind == "near-greedy" or size == 15 else "large"
                    name = f"{what}/{n}x{size * size + 1}/{gamma:g}/{kind}"
                    run = partial(build, n, size, gamma, kind, beside_peers)
                    found.append(Case(name, least, run))
    return found


def _read(found: Any) -> LeaderAnswer:
    return LeaderAnswer(found.value, found.gradient)


def _unrolled(case: cases.LeaderCase) -> int:
    """Choose the steps that JAX takes: ours where we take steps, at most what the tail needs."""
    tail = tail_horizon(case, case.problem.tail_tolerance)
    found = case.problem.leader_pass(case.policies)
    return min(found.horizon, tail) if found.truncation > 0 else tail


def _trial(case: cases.LeaderCase, gradient: bool, beside_peers: bool) -> Trial:
    expected = twin(case, gradient)
    builders: list[Callable[[], Contender]] = [
        lambda: Contender(
            "fastincentive",
            lambda: case.problem.leader_pass(case.policies, gradient=gradient),
            read=_read,
        )
    ]
    if beside_peers:
        horizon = _unrolled(case)
        builders += [
            partial(peers_leader.jax_recursion, case, horizon, "dense", gradient),
            partial(peers_leader.jax_recursion, case, horizon, "scatter", gradient),
            lambda: Contender("plain numpy", lambda: twin(case, gradient, horizon)),
        ]
    contenders, skipped = available(builders)
    return Trial(contenders, lambda answer: leader_error(expected, answer), TOLERANCE, skipped)


def _gradient(n: int, size: int, gamma: float, kind: str, beside_peers: bool) -> Trial:
    return _trial(cases.leader_case(n, size, gamma, kind), True, beside_peers)


def _value(n: int, size: int, gamma: float, kind: str, beside_peers: bool) -> Trial:
    """Beside peers also by way of all joint values, from which the value is read."""
    case = cases.leader_case(n, size, gamma, kind)
    trial = _trial(case, False, beside_peers)
    if not beside_peers:
        return trial
    starts = case.problem.followers.packed.initial

    def at_start(values: np.ndarray) -> LeaderAnswer:
        for start in reversed(starts):
            values = values @ start
        return LeaderAnswer(float(values), None)

    joint = [
        Contender(f"all joint values, {each.name}", each.run, read=at_start)
        for each in peers_leader.joint_values(case, kronecker=False)
    ]
    return Trial([*trial.contenders, *joint], trial.certify, TOLERANCE, trial.skipped)


def _joint(n: int, size: int, gamma: float, kind: str, beside_peers: bool) -> Trial:
    case = cases.leader_case(n, size, gamma, kind)
    contenders = peers_leader.joint_values(case, case.table.size <= _KRONECKER)
    ours = getattr(case.problem, "joint_values", None)
    if ours is not None:
        contenders.insert(0, Contender("fastincentive", lambda: ours(case.policies)))
    return Trial(contenders, partial(joint_residual, case), JOINT_TOLERANCE)
