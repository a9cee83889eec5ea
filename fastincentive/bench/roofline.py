"""How near a large kernel comes to what memory allows: the bytes it must move, against copying.

A byte counts once for each pass over its array, as in STREAM: copying moves twice the array.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from fastincentive._arrays import FloatArray
from fastincentive.bench import cases
from fastincentive.bench.case import Case
from fastincentive.bench.certificates import pair_matrix, policy_matrix
from fastincentive.bench.timing import Contender, Trial
from fastincentive.followers.followers import Followers
from fastincentive.kernels.sweep_order import Ordered

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
        ("improvement", _improvement),
        ("values", _value_sweep),
        ("mass", _mass_sweep),
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
    from fastincentive.kernels.policy_chain import merge_rows, model_size

    mdp, policy = cases.robot_grid(size, _GAMMA), cases.policy(size, _KIND)
    packed = Followers([mdp]).packed
    most = model_size(packed, 0, mdp.n_states, mdp.n_actions)
    start = np.empty(mdp.n_states + 1, np.int64)
    column, weight = np.empty(most, np.int64), np.empty(most)
    end = merge_rows(packed, 0, _GAMMA, policy, False, start, column, weight)
    return (start, column[:end].copy(), weight[:end].copy()), csr_array(
        _GAMMA * policy_matrix(mdp, policy)
    )


class _Rows(NamedTuple):
    """Rows of a policy in sweep order, padded to one width, as evaluation keeps them."""

    places: NDArray[np.uint32]  # (S, K)
    weights: FloatArray  # (S, K)
    earned: FloatArray  # (S,)
    width: tuple[int, ...]


def _ordered(size: int) -> Ordered:
    found = cases.robot_grid(size, _GAMMA).transition.ordered
    assert found is not None  # for the type checker: every row of a grid has three entries
    return found


def _rows(size: int) -> _Rows:
    from fastincentive.followers.evaluation import constant_lengths
    from fastincentive.kernels.occupancy import policy_rows

    (start, column, weight), _ = _chain(size)
    states, widest = start.size - 1, int(np.diff(start).max())
    order = _ordered(size).order[0]
    places, weights = np.empty((states, widest), np.uint32), np.empty((states, widest))
    earned, scale = np.empty(states), np.empty(states)
    reward = _values(states)
    row = np.empty(states, np.int64)
    policy_rows(start, column, weight, order, reward, row, places, weights, earned, scale)
    return _Rows(places, weights, earned, constant_lengths(1, widest)[1])


def _value_sweep(size: int) -> Trial:
    """One Gauss-Seidel sweep of evaluation: rows read, values read and written."""
    from fastincentive.kernels.sweeps import sweep

    rows = _rows(size)
    values, before = np.empty_like(rows.earned), _values(rows.earned.size)[::-1].copy()
    moved = rows.places.nbytes + rows.weights.nbytes + 3.0 * values.nbytes

    def prepare() -> None:
        values[:] = before

    def run(_: None) -> FloatArray:
        sweep(rows.places, rows.weights, rows.earned, values, rows.width)
        return values

    def error(answer: FloatArray) -> float:
        # What comes earlier in the order has its new value by then.
        done = rows.places < np.arange(answer.size)[:, None]
        seen = np.where(done, answer[rows.places], before[rows.places])
        return _difference(rows.earned + (rows.weights * seen).sum(axis=1), answer)

    return Trial([Contender("sweep", run, prepare, moved=moved)], error, 1e-12)


def _mass_sweep(size: int) -> Trial:
    """One transposed sweep: rows read, pending mass and visits read and written, and added up."""
    from fastincentive.kernels.occupancy import transposed_sweep

    rows = _rows(size)
    mass = np.abs(_values(rows.earned.size))
    pending, visits = np.empty_like(mass), np.empty_like(mass)
    moved = rows.places.nbytes + rows.weights.nbytes + 5.0 * mass.nbytes

    def prepare() -> None:
        pending[:] = mass
        visits.fill(0.0)

    def run(_: None) -> None:
        transposed_sweep(rows.places, rows.weights, pending, visits, rows.width)

    def read(_: None) -> FloatArray:
        return np.stack([pending, visits])

    def error(answer: FloatArray) -> float:
        # What was counted either is still pending at the successors, or was mass at the start.
        flow = rows.weights * answer[1][:, None]
        arrived = np.bincount(rows.places.ravel(), flow.ravel(), minlength=mass.size)
        return _difference(mass + arrived - answer[1], answer[0])

    return Trial([Contender("push", run, prepare, read, moved)], error, 1e-12)


def _improvement(size: int) -> Trial:
    """One sweep of value iteration over all actions, none of which changes the policy."""
    from fastincentive.followers.evaluation import constant_lengths
    from fastincentive.kernels.sweeps import PolicyRows, SweepState, improve

    mdp = cases.robot_grid(size, _GAMMA)
    ordered = _ordered(size)
    successor, probability = ordered.successor[0], ordered.probability[0]
    states, actions, widest = successor.shape
    reward = mdp.reward[ordered.order[0]]
    values, before = np.empty(states), _values(states)
    held = np.zeros(states, np.int64)
    rows = PolicyRows(
        np.empty((states, widest), np.uint32), np.empty((states, widest)), np.empty(states)
    )
    state = SweepState(successor, probability, reward, held, rows, values)
    moved = float(successor.nbytes + probability.nbytes + reward.nbytes + held.nbytes)
    moved += 2.0 * values.nbytes

    def prepare() -> None:
        values[:] = before

    def run(_: None) -> FloatArray:
        improve(_GAMMA, np.inf, state, constant_lengths(actions, widest))
        return values

    def error(answer: FloatArray) -> float:
        done = successor < np.arange(states)[:, None, None]
        seen = np.where(done, answer[successor], before[successor])
        q_values = reward + _GAMMA * (probability * seen).sum(axis=2)
        return _difference(q_values.max(axis=1), answer)

    return Trial([Contender("improve", run, prepare, moved=moved)], error, 1e-12)


def _forward_step(size: int) -> Trial:
    """One step of a chain whose mass is everywhere."""
    from fastincentive.kernels.marginals import step_forward

    chain, moves = _chain(size)
    mass = np.abs(_values(moves.shape[0]))
    following = np.empty_like(mass)
    moved = sum(each.nbytes for each in chain) + 3.0 * mass.nbytes
    expected = moves.T @ mass

    def run() -> FloatArray:
        step_forward(*chain, mass, mass, following)
        return following

    return Trial(
        [Contender("step_forward", run, moved=moved)], partial(_difference, expected), 1e-12
    )
