"""Best responses of followers with many states, and what the last answer tells about the next."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fastincentive.evaluation import constant_lengths, direct_cost, evaluate_one
from fastincentive.kernels import bellman, sweeps
from fastincentive.kernels.jit import Packed
from fastincentive.kernels.order import Ordered
from fastincentive.mdp import FloatArray, TransitionModel

__all__ = ["ResponseMemory", "respond_large", "stack_ordered"]

#: Best responses change from sweeps to policy iteration after the cost of so many factorisations.
PATIENCE = 10.0


def stack_ordered(models: Sequence[TransitionModel]) -> Ordered | None:
    """All models in sweep order, or None where the padding of their rows would waste too much."""
    if len(models) == 1:
        return models[0].ordered
    found = [model.ordered for model in models]
    widths = {0 if each is None else each.successor.shape[3] for each in found}
    if len(widths) > 1 or 0 in widths:
        return None
    each_model = [each for each in found if each is not None]
    return Ordered(
        np.concatenate([each.order for each in each_model]),
        np.concatenate([each.successor for each in each_model]),
        np.concatenate([each.probability for each in each_model]),
    )


class ResponseMemory:
    """What earlier best responses tell about the next: values, actions, and how they move.

    While policies stay, values are linear in the rewards. From the answers to rewards r, r', r''
    the memory predicts the one to a combination of them, which then takes a sweep or two to
    certify. Pass the same object to ``Followers.best_responses`` each time.
    """

    def __init__(self) -> None:
        self._points: list[tuple[FloatArray, FloatArray]] = []  # rewards, values; the last first
        self.actions: NDArray[np.int64] | None = None
        self._anchored = False

    def guess(self, rewards: FloatArray) -> FloatArray | None:
        """Predicted values (n, S) for rewards (n, S, A), or None before the first answer."""
        if not self._points or self._points[0][0].shape != rewards.shape:
            self._points = []
            self.actions = None
            return None
        last, values = self._points[0]
        self._anchored = False
        if len(self._points) == 1:
            return values.copy()
        predicted = np.empty(values.shape)
        # With one older point it stands for both.
        self._anchored = sweeps.predict_values(
            rewards, last, *self._points[1], *self._points[-1], values, predicted
        )
        return predicted

    def keep(
        self, rewards: FloatArray, values: FloatArray, actions: NDArray[np.int64], quick: bool
    ) -> None:
        """Note an answer; ``quick`` says that the prediction had all but been right."""
        if self._anchored and quick:
            # The far points tell the directions best.
            self._points[0] = (rewards, values)
        else:
            self._points = [(rewards, values), *self._points[:2]]
        self.actions = actions


def respond_large(
    packed: Packed,
    ordered: Ordered,
    breadth: Sequence[int],
    rewards: FloatArray,
    actions: NDArray[np.int64],
    values: FloatArray,
    tolerance: float = 0.0,
) -> tuple[FloatArray, FloatArray, NDArray[np.int64]]:
    """Q* (n,S,A), Bellman residuals (n,) and iterations (n,); ``actions``, ``values`` in place.

    Sweeps, and for a follower for which they take longer than a few factorisations would, policy
    iteration with these from where the sweeps had come. Discounts below 1.
    """
    n, states, n_actions = rewards.shape
    q_values = np.empty(rewards.shape)
    residual = np.empty(n)
    iterations = np.empty(n, np.int64)
    costs = [direct_cost(states, breadth[m]) for m in packed.model]
    kernel = sweeps.large_responses
    (kernel.serial if n == 1 else kernel)(
        packed,
        ordered,
        rewards,
        tolerance,
        PATIENCE * np.array(costs),
        actions,
        values,
        q_values,
        residual,
        iterations,
        *constant_lengths(n_actions, ordered.successor.shape[3]),
    )
    for i in range(n):
        if tolerance > 0.0 and residual[i] <= tolerance:
            continue
        size = max(float(np.abs(values[i]).max()), float(np.abs(rewards[i]).max()))
        gamma = float(packed.discount[i])
        # Sweeps that rounding stops somewhat short of their own goal are good enough.
        goal = tolerance if tolerance > 0.0 else max(2e-12 * (1.0 - gamma), 4e-15) * size
        if residual[i] > goal and costs[i] < math.inf:
            residual[i], extra = iterate_policies(
                packed, ordered, breadth, i, rewards[i], actions[i], values[i], q_values[i]
            )
            iterations[i] += extra
    return q_values, residual, iterations


def iterate_policies(
    packed: Packed,
    ordered: Ordered,
    breadth: Sequence[int],
    i: int,
    rewards: FloatArray,
    actions: NDArray[np.int64],
    values: FloatArray,
    q_values: FloatArray,
) -> tuple[float, int]:
    """Policy iteration with SuperLU from ``actions``; all in place, returns residual and rounds."""
    gamma = float(packed.discount[i])
    each = np.arange(actions.size)
    count = 0
    while True:
        count += 1
        policy = np.eye(rewards.shape[1])[actions]
        values[:], _ = evaluate_one(packed, ordered, breadth, i, rewards, policy, "direct", 0.0)
        bellman.action_values(packed, i, gamma, rewards, values, q_values)
        best = q_values.argmax(axis=1)
        top = q_values[each, best]
        better = top > q_values[each, actions] + 1e-13 * max(float(np.abs(values).max()), 1e-300)
        if not better.any():
            break
        actions[better] = best[better]
    return float(np.abs(top - values).max()), count
