"""The linear programme of a group of followers whose solution supports given policies."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive._highs import linprog
from fastincentive.errors import invalid
from fastincentive.responses.support_task import SupportTask, transition_matrix

__all__ = ["SupportProgramme"]


class SupportProgramme:
    """The linear programme of a group of followers, over its payments and values.

    V(s) >= Q(s, a) for every action, and V(s) = sum_a pi(a|s) Q(s, a) at visited states, which
    makes V there the policy's own value and leaves no other action above it. Rewards are divided
    by ``scale``, because the solver's tolerances are absolute.
    """

    def __init__(self, task: SupportTask, group: NDArray[np.int64]) -> None:
        from scipy.sparse import block_diag, csr_array, hstack, vstack

        self.task = task
        self.group = group
        payments, followers = task.payments, task.followers
        self.scale = float(task.unit(payments.lower)[group].max())
        self.variables = payments.reaching(group)
        column = np.full(payments.size, -1)
        column[self.variables] = np.arange(self.variables.size)
        states, actions = followers.n_states, followers.n_actions
        pairs = states * actions
        paid, moves, average, fixed = [], [], [], []
        for i in group:
            mdp = followers[i]
            index = payments.index[i].reshape(-1)
            at = np.flatnonzero(index >= 0)
            shape = (pairs, self.variables.size)
            paid.append(csr_array((np.ones(at.size), (at, column[index[at]])), shape=shape))
            every = np.arange(pairs)
            own = csr_array((np.ones(pairs), (every, every // actions)), shape=(pairs, states))
            moves.append(mdp.discount * transition_matrix(mdp.transition) - own)
            weights = task.policies[i].reshape(-1)
            average.append(csr_array((weights, (every // actions, every)), shape=(states, pairs)))
            fixed.append(mdp.transition.absorbing & (mdp.discount == 1.0))
        # Row (s, a) is x + gamma P V - V, at most -(R + bonus).
        rows = hstack([vstack(paid), block_diag(moves)], format="csr")
        reward = (followers.rewards[group] / self.scale).reshape(-1)
        bonus = (task.bonus[group] / self.scale).reshape(-1)
        visited = task.visited[group]
        # A certain action's row says the same as the equality.
        certain = visited[:, :, None] & (task.policies[group] == 1.0)
        self.pairs = np.flatnonzero(followers.available[group] & ~certain)
        self.at_visited = np.repeat(visited.reshape(-1), actions)[self.pairs]
        self.rows = rows[self.pairs]
        self.limit = -(reward + bonus)[self.pairs]
        mean = block_diag(average, format="csr")[np.flatnonzero(visited)]
        self.equal = mean @ rows
        self.target = -(mean @ reward)
        # A follower that stays for ever has value 0; one that could has no less.
        moving = task.problem.moving
        idle = followers.idle(moving)[group].reshape(-1)
        rests = followers.resting(moving, task.policies)[group].reshape(-1)
        pinned = np.concatenate(fixed) | rests
        least = np.where(pinned | idle, 0.0, -np.inf)
        self.bounds = np.column_stack(
            [
                np.concatenate([payments.lower[self.variables], least]),
                np.concatenate([payments.upper[self.variables], np.where(pinned, 0.0, np.inf)]),
            ]
        )
        self.bounds[: self.variables.size] /= self.scale

    def solve(self, prices: FloatArray) -> FloatArray | None:
        """Payments of the group that cost least at ``prices`` (k,), or None if there are none."""
        cost = np.zeros(self.rows.shape[1])
        cost[: self.variables.size] = prices[self.variables]
        result = self._linprog(cost, self.rows, self.equal, self.bounds)
        if result.status == 3:
            raise invalid(
                "cost",
                "a cost with a least value on the allowed payments",
                "one that falls for ever as payments rise",
                None,
                "Give the payments an upper bound.",
            )
        return self._payments(result.x) if result.success else None

    def shortfalls(self) -> tuple[FloatArray, list[tuple[float, int, int, int]]]:
        """Payments nearest to supporting the policies, and (shortfall, i, s, a) what they lack.

        Nearest: the least total by which competing actions exceed the policy's value.
        """
        from scipy.sparse import csr_array, hstack

        lacking = np.flatnonzero(self.at_visited)
        slack = csr_array(
            (-np.ones(lacking.size), (lacking, np.arange(lacking.size))),
            shape=(self.rows.shape[0], lacking.size),
        )
        nothing = csr_array((self.equal.shape[0], lacking.size))
        width = self.rows.shape[1]
        result = self._linprog(
            np.concatenate([np.zeros(width), np.ones(lacking.size)]),
            hstack([self.rows, slack], format="csr"),
            hstack([self.equal, nothing], format="csr"),
            np.vstack([self.bounds, np.tile([0.0, np.inf], (lacking.size, 1))]),
        )
        if not result.success:
            return self.task.payments.lower[self.variables], []
        states, actions = self.task.policies.shape[1:]
        found = []
        for value, pair in zip(result.x[width:], self.pairs[lacking], strict=True):
            if value > 1e-8:
                g, s, a = np.unravel_index(pair, (len(self.group), states, actions))
                found.append((float(value * self.scale), int(self.group[g]), int(s), int(a)))
        return self._payments(result.x), sorted(found, reverse=True)

    def _payments(self, solution: FloatArray) -> FloatArray:
        payments, variables = self.task.payments, self.variables
        amounts = self.scale * solution[: variables.size]
        return np.clip(amounts, payments.lower[variables], payments.upper[variables])

    def _linprog(self, cost: FloatArray, rows: Any, equal: Any, bounds: FloatArray) -> Any:
        return linprog(
            cost,
            A_ub=rows,
            b_ub=self.limit,
            A_eq=equal,
            b_eq=self.target,
            bounds=bounds,
            method="highs",
            options={"primal_feasibility_tolerance": 1e-9, "dual_feasibility_tolerance": 1e-9},
        )
