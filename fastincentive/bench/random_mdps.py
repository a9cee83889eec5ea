"""Random MDPs on many kinds of graphs."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from fastincentive.followers.mdp import TabularMDP

__all__ = ["KINDS", "random_mdp"]

#: Kinds of graphs.
KINDS = (
    "sparse",  # a random graph: mixes soon, factors fill up
    "dense",
    "ragged",  # a few rows reach everywhere
    "hub",  # every state may fall back to one
    "ring",  # periodic, or nearly
    "local",  # a band
    "deterministic",
    "clusters",  # two that seldom exchange mass
    "tree",  # children lead to their parent and back
)


def random_matrices(
    kind: str, rng: np.random.Generator, states: int, actions: int
) -> list[sparse.csr_array]:
    """Draw one transition matrix (S, S) for each action."""
    here = np.arange(states)
    found: list[sparse.csr_array] = []
    for a in range(actions):
        count = 3
        if kind == "dense":
            found.append(sparse.csr_array(rng.dirichlet(np.full(states, 0.3), states)))
            continue
        if kind == "ring":
            columns = (here[:, None] + a + np.array([1, 1 + (a > 0)])) % states
        elif kind == "local":
            columns = np.clip(here[:, None] + rng.integers(-2, 3, (states, count)), 0, states - 1)
        elif kind == "deterministic":
            columns = rng.integers(0, states, (states, 1))
        elif kind == "clusters":
            half = states // 2
            columns = rng.integers(0, half, (states, count)) + half * (here >= half)[:, None]
        elif kind == "tree":
            columns = np.stack(
                [(here - 1) // 2, 2 * here + 1 + rng.integers(0, 2, states), here], axis=1
            ).clip(0, states - 1)
        else:
            columns = rng.integers(0, states, (states, count))
        weights = rng.dirichlet(np.full(columns.shape[1], 0.5), states)
        rows = np.repeat(here, columns.shape[1])
        moves = sparse.csr_array((weights.ravel(), (rows, columns.ravel())), (states, states))
        if kind == "hub":
            moves = 0.9 * moves + 0.1 * _to_state(states, states // 3)
        if kind == "clusters":
            moves = (1.0 - 1e-4) * moves + 1e-4 * _to_state(states, int(rng.integers(states)))
        if kind == "ragged":
            wide = moves.tolil()
            for s in rng.choice(states, 3, replace=False):
                wide[s] = np.full(states, 1.0 / states)
            moves = sparse.csr_array(wide)
        found.append(moves)
    return found


def _to_state(states: int, goal: int) -> sparse.csr_array:
    column = np.full(states, goal)
    return sparse.csr_array((np.ones(states), (np.arange(states), column)), (states, states))


def random_mdp(
    kind: str, seed: int, states: int, discount: float, actions: int | None = None
) -> TabularMDP:
    """Draw an MDP; at discount 1 the last state absorbs, and every move may end there.

    Without a number of actions, 2 to 4 are drawn.
    """
    rng = np.random.default_rng([seed, KINDS.index(kind), states])
    drawn = int(rng.integers(2, 5))
    actions = drawn if actions is None else actions
    matrices = random_matrices(kind, rng, states, actions)
    reward = rng.normal(size=(states, actions)) * rng.choice([1e-3, 1.0, 100.0])
    if discount == 1.0:
        leave = rng.choice([1e-4, 1e-2, 0.1])
        alive = np.ones(states)
        alive[-1] = 0.0
        end = _to_state(states, states - 1)
        matrices = [
            sparse.csr_array(
                sparse.diags_array((1.0 - leave) * alive) @ moves
                + sparse.diags_array(1.0 - (1.0 - leave) * alive) @ end
            )
            for moves in matrices
        ]
        reward[-1] = 0.0
    return TabularMDP(matrices, reward, discount, initial=states // 2)
