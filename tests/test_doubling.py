"""Sums over time on the product space: doubling beside plain sums, and its certificate."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import ROUNDING, assert_close, random_game
from twin import label_table

from fastincentive.kernels import joint
from fastincentive.problem.doubling import Powers, sum_terms
from fastincentive.problem.product_space import chains


def drawn(n, states, discount, closed=1):
    """Dense chains (n, S, S), a table that is 0 where all are absorbed, and who is not."""
    game = random_game(np.random.default_rng([n, 1]), n, states, 2, discount, closed=closed)
    problem = game.problem()
    packed = problem.followers.packed
    moves = chains(problem.followers, game.policies)
    return game, problem, moves, ~packed.absorbing[packed.model]


def step(moves, discount, table, adjoint=False):
    """One step of the joint chain by an explicit Kronecker product."""
    whole = np.ones((1, 1))
    for move in moves:
        whole = np.kron(whole, move)
    whole = discount * (whole.T if adjoint else whole)
    return (whole @ table.reshape(-1)).reshape(table.shape)


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_powers_apply_the_joint_chain(n, adjoint):
    _, problem, moves, _ = drawn(n, 4, 0.9)
    table = label_table(problem)
    powers = Powers(moves.copy(), 0.9)
    expected = table
    for count in (1, 2, 4):
        assert powers.terms == count
        while count > 0:
            expected, count = step(moves, 0.9, expected, adjoint), count - 1
        found = powers.apply(table, adjoint)
        assert_close(found, expected, ROUNDING)
        powers.square()
        expected = table


@pytest.mark.parametrize("discount", [0.9, 1.0])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_norm_bounds_what_is_to_come(n, discount):
    """And is not far off: at discount 1 it falls with the chance of being absorbed."""
    _, problem, moves, unsettled = drawn(n, 4, discount)
    table = label_table(problem)
    powers = Powers(moves.copy(), discount, unsettled)
    for _ in range(6):
        most = np.abs(powers.apply(np.where(table != 0.0, np.sign(table), 0.0))).max()
        assert most <= powers.norm() * (1.0 + 1e-12)
        assert powers.norm() <= n * 0.8**powers.terms + 1e-12
        powers.square()


@pytest.mark.parametrize("discount", [0.9, 1.0])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_sums_obey_their_equation(n, discount):
    _, problem, moves, unsettled = drawn(n, 5, discount)
    table = label_table(problem)
    found = sum_terms(Powers(moves.copy(), discount, unsettled), table.copy())
    assert found.left <= 1e-14 * np.abs(found.total).max()
    assert_close(found.total - step(moves, discount, found.total), table, ROUNDING)
    cut = sum_terms(Powers(moves.copy(), discount, unsettled), table.copy(), limit=4)
    assert cut.terms == 4
    assert np.abs(cut.total - found.total).max() <= cut.left


@pytest.mark.parametrize("count", [1, 2, 8])
def test_first_steps_equal_plain_ones(count):
    game, problem, moves, _ = drawn(2, 6, 0.9)
    table = label_table(problem)
    total, left, right = np.empty((3, 6, 6))
    arguments = (problem.followers.packed, problem.passes.pattern, game.policies, table, 0.9)
    joint.pair_terms(*arguments, count, total, left, right)
    expected = np.zeros((6, 6))
    for _ in range(count):
        expected = table + step(moves, 0.9, expected)
    assert_close(total, expected, ROUNDING)
    for found, move in zip((left, right), moves, strict=True):
        assert_close(found, np.linalg.matrix_power(move, count), ROUNDING)
