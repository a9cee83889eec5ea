"""Ties of followers with too many tied responses to list: bounded work, and as good an answer."""

import tracemalloc

import numpy as np
import pytest
from conftest import EXACT, assert_close

import fastincentive as fi
from fastincentive.responses import tied_choices as ties
from fastincentive.responses.ties import broken_ties


def open_grid(size, n=1, **settings):
    """An open square without slips, whose shortest ways all tie; a lesser goal lies on some."""
    rows = [["."] * size for _ in range(size)]
    rows[0][0], rows[size - 1][size - 1], rows[1][size - 2] = "S", "G", "L"
    layout = "\n".join("".join(row) for row in rows)
    starts = [(0, 0), (1, 0), (0, 1)][:n]
    return fi.models.gridworld(layout, slip=0.0, starts=starts, **settings)


@pytest.mark.parametrize("discount", [0.9, 1.0])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("n", [1, 2])
def test_tied_actions_are_chosen_as_well_as_from_all_that_are_listed(n, sign, discount):
    problem = open_grid(4, n, leader_discount=discount)
    for x in (np.zeros(problem.payments.size), np.full(problem.payments.size, 10.0)):
        exact = broken_ties(problem, x, sign)
        choices = ties.tied_choices(problem, x)
        found = ties.climbed(problem, x, choices, sign)
        assert (found[choices.tied].reshape(-1) <= 1.0).all()
        assert not found[~choices.tied].any()
        values = [ties.net_of(problem, x, policies, False) for policies in (found, exact.policies)]
        assert exact.exact
        assert_close(values[0], values[1], EXACT)


def test_what_finds_no_room_is_not_listed(monkeypatch):
    problem = open_grid(4)
    x = np.full(problem.payments.size, 10.0)
    listed = broken_ties(problem, x, 1.0)
    monkeypatch.setattr("fastincentive.responses.ties.MOST_BYTES", 0)
    other = broken_ties(problem, x, 1.0)
    assert (listed.exact, other.exact) == (True, False)
    assert_close(problem.leader_value(other.policies), problem.leader_value(listed.policies))
    kept = broken_ties(problem, x, 1.0, start=listed.policies)
    assert_close(problem.leader_value(kept.policies), problem.leader_value(listed.policies))


@pytest.mark.slow
def test_ties_of_many_states_take_little_memory():
    broken_ties(open_grid(33, leader_discount=0.95), np.zeros(1), 1.0)  # compiles
    problem = open_grid(60, leader_discount=0.95)
    estimate = problem.memory_estimate()
    tracemalloc.start()
    for sign in (1.0, -1.0):
        found = broken_ties(problem, np.zeros(1), sign)
        assert problem.evaluate(np.zeros(1), found.policies).follower_gaps.max() < 1e-9
    problem.expected_spend(np.ones(1), found.policies)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < estimate.total - estimate.held
