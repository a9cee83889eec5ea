"""How near a large kernel comes to what memory allows: the bytes it must move, against copying.

A byte counts once for each pass over its array, as in STREAM: copying moves twice the array.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from time import perf_counter
from typing import Any

import numpy as np
from scipy.sparse import csr_array, eye_array, tril, triu
from scipy.sparse.linalg import spsolve_triangular

from fastincentive.bench import cases
from fastincentive.bench.case import Case
from fastincentive.bench.certificates import pair_matrix, policy_matrix
from fastincentive.bench.timing import Contender, Trial
from fastincentive.followers import Followers
from fastincentive.mdp import FloatArray

__all__ = ["copy_bandwidth", "sweep_cases"]

_GAMMA, _KIND = 0.99, "near-greedy"


@lru_cache(maxsize=1)
def copy_bandwidth(mebibytes: int = 256, repeats: int = 7) -> float:
    """Bytes per second of the best of several copies of a large array, one thread."""
    source = np.ones(mebibytes * 2**20 // 8)
    target = np.zeros_like(source)
    seconds = []
    for _ in range(repeats):
        began = perf_counter()
        np.copyto(target, source)
        seconds.append(perf_counter() - began)
    return 2.0 * source.nbytes / min(seconds)


def sweep_cases() -> list[Case]:
    """List passes of the large kernels over a grid, with the bytes that they must move."""
    kinds: list[tuple[str, Callable[[int], Trial]]] = [
        ("action-values", _action_values),
        ("gauss-seidel", _gauss_seidel),
        ("forward-step", _forward_step),
    ]
    return [
        Case(f"sweep/{name}/grid-{size}", profile, partial(build, size))
        for name, build in kinds
        for size, profile in ((100, "smoke"), (300, "regular"), (1000, "large"))
    ]


def _difference(expected: FloatArray, answer: FloatArray) -> float:
    return float(np.abs(answer - expected).max() / max(1.0, np.abs(expected).max()))


def _values(states: int) -> FloatArray:
    return np.random.default_rng(states).normal(size=states)


def _action_values(size: int) -> Trial:
    """Q of given values on successor lists, read as they are stored."""
    from fastincentive.kernels.bellman import action_values

    mdp = cases.robot_grid(size, _GAMMA)
    followers, values = Followers([mdp]), _values(mdp.n_states)
    out = np.empty(mdp.reward.shape)
    model = mdp.transition
    moved = sum(
        each.nbytes
        for each in (
            model.row_start,
            model.successor,
            model.probability,
            model.available,
            mdp.reward,
            values,
            out,
        )
    )
    product = pair_matrix(mdp) @ values
    expected = mdp.reward + _GAMMA * product.reshape(mdp.reward.shape)

    def run() -> FloatArray:
        action_values(followers.packed, 0, _GAMMA, mdp.reward, values, out)
        return out

    ours = Contender("action_values", run, moved=float(moved))
    return Trial([ours], partial(_difference, expected), 1e-12)


def _chain(size: int) -> tuple[Any, csr_array]:
    """Merge rows of gamma P^pi as the kernels keep them, and as a SciPy matrix."""
    from fastincentive.kernels.chain import merge_rows, model_size

    mdp, policy = cases.robot_grid(size, _GAMMA), cases.policy(size, _KIND)
    packed = Followers([mdp]).packed
    most = model_size(packed, 0, mdp.n_states, mdp.n_actions)
    start = np.empty(mdp.n_states + 1, np.int64)
    column, weight = np.empty(most, np.int64), np.empty(most)
    end = merge_rows(packed, 0, _GAMMA, policy, False, start, column, weight)
    return (start, column[:end].copy(), weight[:end].copy()), csr_array(
        _GAMMA * policy_matrix(mdp, policy)
    )


def _gauss_seidel(size: int) -> Trial:
    """Two sweeps of evaluation, forth and back."""
    from fastincentive.kernels.chain import sweep_values

    chain, moves = _chain(size)
    reward = _values(moves.shape[0])
    out = np.empty_like(reward)
    # One sweep reads the chain and the reward, and reads and writes the values.
    moved = 2.0 * (sum(each.nbytes for each in chain) + 3 * reward.nbytes)
    system = eye_array(moves.shape[0], format="csr") - moves
    expected = spsolve_triangular(tril(system, format="csr"), reward)
    upper = triu(system, format="csr")
    expected = spsolve_triangular(upper, reward - tril(system, -1) @ expected, lower=False)

    def run() -> FloatArray:
        out.fill(0.0)
        sweep_values(*chain, reward, out, 0.0, 2)
        return out

    return Trial(
        [Contender("sweep_values", run, moved=moved)], partial(_difference, expected), 1e-12
    )


def _forward_step(size: int) -> Trial:
    """One step of a chain whose mass is everywhere."""
    from fastincentive.kernels.marginals import step_forward

    chain, moves = _chain(size)
    mass = np.abs(_values(moves.shape[0]))
    following = np.empty_like(mass)
    moved = sum(each.nbytes for each in chain) + 3.0 * mass.nbytes
    expected = moves.T @ mass

    def run() -> FloatArray:
        step_forward(*chain, mass, following)
        return following

    return Trial(
        [Contender("step_forward", run, moved=moved)], partial(_difference, expected), 1e-12
    )
