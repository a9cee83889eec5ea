"""Evaluation and occupancy of one policy by SciPy: sparse and dense factors, Krylov, plain NumPy.

Each answers with V (S,), Q (S, A) and the unnormalised occupancy of states (S,), from the policy as
it is given; the structures that do not depend on the policy are made beforehand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import linalg
from scipy.sparse import csc_array, csr_array, eye_array
from scipy.sparse import linalg as sparse

from fastincentive._arrays import FloatArray
from fastincentive.bench.certificates import pair_matrix, policy_matrix
from fastincentive.bench.timing import Contender
from fastincentive.followers.mdp import TabularMDP

__all__ = ["TOLERANCE", "contenders"]

#: Largest residual of V and of the occupancy that passes.
TOLERANCE = 1e-10
#: Dense factors up to this many states.
_DENSE = 1000

Solve = Callable[[csr_array, FloatArray, FloatArray], tuple[FloatArray, FloatArray]]


def contenders(mdp: TabularMDP, policy: FloatArray) -> list[Contender]:
    """Everything that suits the number of states."""
    states = mdp.n_states
    identity = eye_array(states, format="csr")

    def by_factors(moves: csr_array, reward: FloatArray, start: FloatArray) -> Any:
        factors = _splu(identity - mdp.discount * moves)
        return factors.solve(reward), factors.solve(start, "T")

    def by_two_solves(moves: csr_array, reward: FloatArray, start: FloatArray) -> Any:
        system = csc_array(identity - mdp.discount * moves)
        return sparse.spsolve(system, reward), sparse.spsolve(csc_array(system.T), start)

    def by_krylov(moves: csr_array, reward: FloatArray, start: FloatArray) -> Any:
        system = csr_array(identity - mdp.discount * moves)
        return tuple(
            sparse.bicgstab(matrix, right, rtol=0.0, atol=1e-11, maxiter=10 * states + 1000)[0]
            for matrix, right in ((system, reward), (csr_array(system.T), start))
        )

    def by_dense_factors(moves: csr_array, reward: FloatArray, start: FloatArray) -> Any:
        factors = linalg.lu_factor(
            np.eye(states) - mdp.discount * moves.toarray(), overwrite_a=True, check_finite=False
        )
        return linalg.lu_solve(factors, reward), linalg.lu_solve(factors, start, trans=1)

    found = [
        _from_policy("scipy splu", mdp, policy, by_factors),
        _factors_only(mdp, policy),
        _from_policy("scipy bicgstab", mdp, policy, by_krylov),
    ]
    if states <= 100_000:
        found.append(_from_policy("scipy spsolve", mdp, policy, by_two_solves))
    if states <= _DENSE:
        found.append(_from_policy("scipy dense lu", mdp, policy, by_dense_factors))
        found.append(_plain(mdp, policy))
    return found


def _splu(system: Any) -> Any:
    """Factors by the ordering that suits grids."""
    return sparse.splu(
        csc_array(system),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )


def _from_policy(name: str, mdp: TabularMDP, policy: FloatArray, solve: Solve) -> Contender:
    pairs = pair_matrix(mdp)

    def run() -> Any:
        moves = policy_matrix(mdp, policy, pairs)
        values, visits = solve(moves, (policy * mdp.reward).sum(axis=1), mdp.initial)
        q_values = mdp.reward + mdp.discount * (pairs @ values).reshape(policy.shape)
        return values, visits, q_values

    return Contender(name, run, read=lambda found: found[:2])


def _factors_only(mdp: TabularMDP, policy: FloatArray) -> Contender:
    """Factors and two solves alone: the matrix is given, Q is not asked for."""
    system = eye_array(mdp.n_states, format="csr") - mdp.discount * policy_matrix(mdp, policy)
    system = csc_array(system)
    reward = (policy * mdp.reward).sum(axis=1)

    def run() -> Any:
        factors = _splu(system)
        return factors.solve(reward), factors.solve(mdp.initial, "T")

    return Contender("scipy splu, matrix given", run)


def _plain(mdp: TabularMDP, policy: FloatArray) -> Contender:
    """Answer by the twin in NumPy: dense transitions (S, A, S) and a solve."""
    transition = mdp.dense_transition()
    identity = np.eye(mdp.n_states)

    def run() -> Any:
        system = identity - mdp.discount * np.einsum("sa,sap->sp", policy, transition)
        values = np.linalg.solve(system, (policy * mdp.reward).sum(axis=1))
        visits = np.linalg.solve(system.T, mdp.initial)
        return values, visits, mdp.reward + mdp.discount * transition @ values

    return Contender("plain numpy", run, read=lambda found: found[:2])
