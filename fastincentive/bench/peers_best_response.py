"""Best responses by other packages: quantecon, mdpsolver, and a value iteration in JAX."""

from __future__ import annotations

from importlib import import_module
from itertools import pairwise
from typing import Any

import numpy as np

from fastincentive.bench.certificates import pair_matrix
from fastincentive.bench.timing import Contender
from fastincentive.errors import missing_extra
from fastincentive.followers.mdp import TabularMDP

__all__ = [
    "TOLERANCE",
    "jax_value_iteration",
    "jax_x64",
    "mdpsolver_policy_iteration",
    "policy_iteration",
    "quantecon",
]

#: Largest Bellman residual that passes.
TOLERANCE = 1e-10
_PARTIAL_SWEEPS = 20


def optional_package(name: str) -> Any:
    """Import a package of the ``bench`` extra, or say how to install it."""
    try:
        return import_module(name)
    except ImportError:
        raise missing_extra(name, "bench") from None


def jax_x64() -> Any:
    """Import JAX in double precision."""
    jax = optional_package("jax")
    jax.config.update("jax_enable_x64", True)
    return jax


def quantecon(mdp: TabularMDP) -> Contender:
    """Run quantecon's modified policy iteration (k = 20) on sparse state-action pairs."""
    markov = optional_package("quantecon.markov")
    states, actions = np.nonzero(mdp.available)
    pairs = pair_matrix(mdp)[np.flatnonzero(mdp.available.reshape(-1))]
    # The public sparse arrays index with int64; the package wants matrices.
    from scipy.sparse import csr_matrix

    matrix = csr_matrix((pairs.data, pairs.indices, pairs.indptr), shape=pairs.shape)
    model = markov.DiscreteDP(
        np.ascontiguousarray(mdp.reward[mdp.available]), matrix, mdp.discount, states, actions
    )
    # Its rule stops at a span of epsilon (1 - gamma) / gamma, which then is the residual.
    epsilon = TOLERANCE * mdp.discount / (1.0 - mdp.discount)
    return Contender(
        "quantecon",
        lambda: model.solve(method="mpi", epsilon=epsilon, max_iter=10_000_000, k=_PARTIAL_SWEEPS),
        read=lambda found: (np.asarray(found.v), np.asarray(found.sigma, np.int64)),
    )


def policy_iteration(mdp: TabularMDP) -> Contender:
    """Run Howard's policy iteration with SciPy's sparse factors, from the best immediate reward."""
    from scipy.sparse import csc_array, eye_array
    from scipy.sparse.linalg import splu

    pairs = pair_matrix(mdp)
    states, actions = mdp.reward.shape
    rewards = np.where(mdp.available, mdp.reward, -np.inf)
    each = np.arange(states)
    identity = eye_array(states, format="csc")

    def solve() -> Any:
        policy = rewards.argmax(axis=1)
        for _ in range(1000):
            moves = csc_array(pairs[each * actions + policy])
            factors = splu(
                csc_array(identity - mdp.discount * moves),
                permc_spec="MMD_AT_PLUS_A",
                diag_pivot_thresh=0.0,
                options={"SymmetricMode": True},
            )
            values = factors.solve(rewards[each, policy])
            q_values = rewards + mdp.discount * (pairs @ values).reshape(states, actions)
            best = q_values.argmax(axis=1)
            gain = q_values[each, best] - q_values[each, policy]
            if gain.max() <= 1e-12 * max(1.0, float(np.abs(values).max())):
                break
            policy = np.where(gain > 0.0, best, policy)
        return values, policy

    return Contender("SciPy policy iteration", solve)


def mdpsolver_policy_iteration(mdp: TabularMDP, update: str = "standard") -> Contender:
    """Run mdpsolver's modified policy iteration, each call on a new model: it remembers values.

    Making the model, out of nested lists, is not timed.
    """
    package = optional_package("mdpsolver")
    model = mdp.transition
    states, actions = mdp.available.shape
    bounds = model.row_start.tolist()
    columns, probabilities = model.successor.tolist(), model.probability.tolist()

    def nested(flat: list[Any]) -> list[list[list[Any]]]:
        rows = [flat[first:last] for first, last in pairwise(bounds)]
        return [rows[s * actions : (s + 1) * actions] for s in range(states)]

    if not mdp.available.all():
        raise ValueError("mdpsolver: expected every action to be available in every state")
    settings = {
        "discount": mdp.discount,
        "rewards": mdp.reward.tolist(),
        "tranMatProbs": nested(probabilities),
        "tranMatColumns": nested(columns),
    }

    def prepare() -> Any:
        fresh = package.model()
        fresh.mdp(**settings)
        return fresh

    def run(fresh: Any) -> Any:
        fresh.solve(
            algorithm="mpi",
            update=update,
            tolerance=TOLERANCE,
            makeFinalCheck=False,
        )
        return fresh

    return Contender(
        f"mdpsolver {update}",
        run,
        prepare,
        lambda solved: (np.array(solved.getValueVector()), np.array(solved.getPolicy())),
    )


def jax_value_iteration(mdp: TabularMDP) -> Contender:
    """Run a jitted value iteration in JAX, double precision, on successor lists."""
    jax = jax_x64()
    numpy = jax.numpy
    model = mdp.transition
    states, actions = mdp.available.shape
    counts = np.diff(model.row_start)
    width = int(counts.max())
    row = np.repeat(np.arange(states * actions), counts)
    place = np.arange(row.size) - model.row_start[row]
    successor = np.zeros((width, states * actions), np.int32)
    probability = np.zeros((width, states * actions))
    successor[place, row] = model.successor
    probability[place, row] = model.probability

    # States last: reductions then run over whole vectors.
    def arranged(array: Any) -> Any:
        return numpy.asarray(
            np.ascontiguousarray(array.reshape(-1, states, actions).transpose(0, 2, 1))
        )

    earned = np.where(mdp.available, mdp.reward, -np.inf)
    targets, weights = arranged(successor), mdp.discount * arranged(probability)
    earned = arranged(earned)[0]

    def solve(targets: Any, weights: Any, earned: Any) -> Any:
        def going(carry: Any) -> Any:
            return carry[1] > TOLERANCE

        def sweep(carry: Any) -> Any:
            values = carry[0]
            best = (earned + (weights * values[targets]).sum(0)).max(0)
            return best, numpy.abs(best - values).max()

        start = (numpy.zeros(earned.shape[1]), numpy.array(numpy.inf))
        return jax.lax.while_loop(going, sweep, start)[0]

    solve = jax.jit(solve)
    return Contender(
        "jax value iteration",
        lambda: solve(targets, weights, earned).block_until_ready(),
        read=lambda values: (np.asarray(values), None),
    )
