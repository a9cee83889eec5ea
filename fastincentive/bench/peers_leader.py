"""The leader's value and gradient by JAX, and full joint value functions by SciPy and NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.sparse import csr_array, kron
from scipy.sparse import linalg as sparse

from fastincentive._arrays import FloatArray
from fastincentive.bench.cases import LeaderCase
from fastincentive.bench.certificates import policy_matrix
from fastincentive.bench.leader_twin import LeaderAnswer
from fastincentive.bench.peers_best_response import jax_x64
from fastincentive.bench.timing import Contender

__all__ = ["jax_recursion", "joint_values"]


def jax_recursion(case: LeaderCase, horizon: int, form: str, gradient: bool = True) -> Contender:
    """Differentiate the recursion over marginals, unrolled by ``lax.scan``, with JAX.

    Parameters
    ----------
    case : LeaderCase
    horizon : int
        Number of steps.
    form : "dense" or "scatter"
        A step is a product with dense P^pi, or a sum over successor lists.
    gradient : bool
        Whether the derivative by the policies is asked for.
    """
    jax = jax_x64()
    numpy = jax.numpy
    problem = case.problem
    n, states, actions = case.policies.shape
    gamma = problem.leader_discount
    weights = numpy.asarray(gamma ** np.arange(horizon))
    starts = numpy.asarray(problem.followers.packed.initial)
    table = numpy.asarray(case.table)
    step: Callable[[Any, Any, Any], Any]
    if form == "dense":
        data = numpy.asarray(np.stack([mdp.dense_transition() for mdp in problem.followers]))

        def prepare(policies: Any, data: Any) -> Any:
            return numpy.einsum("nsa,nsap->nsp", policies, data)

        def step(laws: Any, moves: Any, data: Any) -> Any:
            return numpy.einsum("ns,nsp->np", laws, moves)

    else:
        # One number for each follower's edge: its origin pair, and where it leads.
        models = [mdp.transition for mdp in problem.followers]
        pairs = np.concatenate(
            [
                i * states * actions
                + np.repeat(np.arange(states * actions), np.diff(model.row_start))
                for i, model in enumerate(models)
            ]
        )
        targets = np.concatenate(
            [i * states + model.successor for i, model in enumerate(models)]
        ).astype(np.int32)
        chances = np.concatenate([model.probability for model in models])
        data = tuple(numpy.asarray(each) for each in (pairs, pairs // actions, targets, chances))

        def prepare(policies: Any, data: Any) -> Any:
            return policies.reshape(-1)[data[0]] * data[3]

        def step(laws: Any, moves: Any, data: Any) -> Any:
            flow = laws.reshape(-1)[data[1]] * moves
            summed = jax.ops.segment_sum(flow, data[2], num_segments=n * states)
            return summed.reshape(n, states)

    def value(policies: Any, data: Any, table: Any) -> Any:
        moves = prepare(policies, data)

        def forward(laws: Any, _: Any) -> Any:
            return step(laws, moves, data), laws

        _, laws = jax.lax.scan(forward, starts, None, length=horizon)
        # Every policy entry is a free variable: rewards are earned by acting.
        laws = laws * policies.sum(axis=2)
        if n == 2:
            earned = ((laws[:, 0] @ table) * laws[:, 1]).sum(axis=1)
        else:
            pairwise = (laws[:, 0] @ table.reshape(states, -1)).reshape(-1, states, states)
            earned = numpy.einsum("tbc,tb,tc->t", pairwise, laws[:, 1], laws[:, 2])
        return weights @ earned

    compiled = jax.jit(jax.value_and_grad(value) if gradient else value)
    policies = numpy.asarray(case.policies)

    def read(found: Any) -> LeaderAnswer:
        if gradient:
            return LeaderAnswer(float(found[0]), np.asarray(found[1]))
        return LeaderAnswer(float(found), None)

    return Contender(
        f"jax {form}",
        lambda: jax.block_until_ready(compiled(policies, data, table)),
        read=read,
    )


def joint_values(case: LeaderCase, kronecker: bool) -> list[Contender]:
    """Full joint value function (S,)*n: doubling, bicgstab and, where asked, the Kronecker solve.

    The policies' transition matrices are given.
    """
    gamma, table = case.problem.leader_discount, case.table
    moves = [
        policy_matrix(mdp, policy)
        for mdp, policy in zip(case.problem.followers, case.policies, strict=True)
    ]
    found = [
        Contender("numpy doubling", lambda: _doubling(moves, table, gamma)),
        Contender("scipy bicgstab", lambda: _krylov(moves, table, gamma)),
    ]
    if kronecker:
        found.append(Contender("scipy kronecker spsolve", lambda: _kronecker(moves, table, gamma)))
    return found


def _along(move: Any, values: FloatArray, axis: int) -> FloatArray:
    """Apply a matrix (S, S) along one axis."""
    shape = values.shape
    before = int(np.prod(shape[:axis]))
    if axis == 0:
        return np.asarray(move @ values.reshape(shape[0], -1)).reshape(shape)
    if axis == len(shape) - 1:
        return np.asarray((move @ values.reshape(-1, shape[axis]).T).T).reshape(shape)
    blocks = values.reshape(before, shape[axis], -1)
    return np.stack([move @ block for block in blocks]).reshape(shape)


def _doubling(moves: list[csr_array], table: FloatArray, gamma: float) -> FloatArray:
    """W = sum of gamma^t (P_1 x ... x P_n)^t R; every turn doubles the number of terms."""
    powers, scale, total = [move.toarray() for move in moves], gamma, table
    for _ in range(60):
        step = total
        for axis, power in enumerate(powers):
            step = _along(power, step, axis)
        total = total + scale * step
        if scale * np.abs(step).max() <= 1e-16 * np.abs(total).max():
            break
        powers, scale = [power @ power for power in powers], scale * scale
    return total


def _krylov(moves: list[csr_array], table: FloatArray, gamma: float) -> FloatArray:
    """Bicgstab with products along each axis."""

    def apply(flat: FloatArray) -> FloatArray:
        expected = flat.reshape(table.shape)
        for axis, move in enumerate(moves):
            expected = _along(move, expected, axis)
        return flat - gamma * expected.reshape(-1)

    operator = sparse.LinearOperator((table.size, table.size), matvec=apply, dtype=float)
    right = table.reshape(-1)
    scale = float(np.abs(right).max())
    solved, _ = sparse.bicgstab(operator, right, rtol=0.0, atol=3e-12 * scale, maxiter=10_000)
    return np.asarray(solved).reshape(table.shape)


def _kronecker(moves: list[csr_array], table: FloatArray, gamma: float) -> FloatArray:
    """Solve one sparse system over all joint states."""
    joint = moves[0]
    for move in moves[1:]:
        joint = kron(joint, move, format="csr")
    system = csr_array(-gamma * joint)
    system.setdiag(system.diagonal() + 1.0)
    return np.asarray(sparse.spsolve(system.tocsc(), table.reshape(-1))).reshape(table.shape)
