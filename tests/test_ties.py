"""Which actions are optimal, at any scale: against models made from their values in fractions."""

from fractions import Fraction

import numpy as np
import pytest
from conftest import assert_close

import fastincentive as fi
from fastincentive.followers.followers import Followers
from fastincentive.responses.ties import broken_ties

STATES, ACTIONS = 4, 3


def model_with_losses(seed):
    """A model of which each action loses what was drawn, up to the rounding of its rewards.

    Returns the model and the losses (S, A).
    """
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.uniform(-6, 12)
    discount = 1.0 - 10.0 ** -float(rng.integers(1, 9))
    transition = np.zeros((STATES, ACTIONS, STATES))
    for s in range(STATES):
        for a in range(ACTIONS):
            np.add.at(transition[s, a], rng.integers(STATES, size=8), 0.125)
    # The last action of a state may be a penalty, the others lose little or nothing.
    losses = np.where(rng.random((STATES, ACTIONS)) < 0.5, 0.0, 1.0)
    losses *= scale * 10.0 ** rng.uniform(-7, 0, size=losses.shape)
    losses[np.arange(STATES), rng.integers(ACTIONS - 1, size=STATES)] = 0.0
    penalties = rng.random(STATES) < 0.3
    losses[penalties, -1] = scale * 10.0 ** rng.uniform(3, 12)
    gamma = Fraction(discount)
    level = Fraction(scale * rng.normal()) / (1 - gamma)
    values = [level + Fraction(scale * each) for each in rng.normal(size=STATES)]
    reward = np.empty((STATES, ACTIONS))
    for s in range(STATES):
        for a in range(ACTIONS):
            following = sum(Fraction(p) * v for p, v in zip(transition[s, a], values, strict=True))
            reward[s, a] = float(values[s] - gamma * following - Fraction(losses[s, a]))
    return fi.TabularMDP(transition, reward, discount, 0), losses


@pytest.mark.parametrize("first", [0, pytest.param(60, marks=pytest.mark.slow)])
def test_ties_are_those_of_the_losses_at_any_scale_and_discount(first):
    for seed in range(first, 60 if first == 0 else 600):
        mdp, losses = model_with_losses(seed)
        followers = Followers([mdp])
        rewards = mdp.reward[None]
        best = followers.best_responses(rewards)
        found = followers.optimal_actions(rewards, np.zeros(rewards.shape), best)
        met = followers.reached(found.tied)[0]
        assert met[0]
        assert np.array_equal(found.tied[0, met], losses[met] == 0.0)
        least = losses[met][losses[met] > 0.0].min(initial=np.inf)
        if np.isfinite(least):
            assert_close(found.margin / least, [1.0], 1e-6)
        else:
            assert found.margin[0] == np.inf


@pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")
@pytest.mark.parametrize("first", [0, pytest.param(8, marks=pytest.mark.slow)])
def test_payments_that_buy_an_action_are_its_loss(first):
    for seed in range(first, 8 if first == 0 else 100):
        mdp, losses = model_with_losses(seed)
        direction = np.zeros((STATES, ACTIONS))
        a = int(np.argmax(losses[0, :-1]))
        loss = losses[0, a]
        if loss < 1e-5 * np.abs(mdp.reward[:, :-1]).max():
            continue  # tied up to what the sums at a state can tell
        direction[0, a] = 1.0
        regimes = fi.follower_regimes(mdp, direction, upper=2.0 * loss)
        buys = regimes.lower[regimes.policies[:, 0, a] == 1.0]
        assert_close(buys.min() / loss, 1.0, 1e-6)
        problem = fi.IncentiveProblem(
            [mdp],
            fi.AdditiveReward(np.where(direction > 0, 1.0, 0.0)[None]),
            fi.Payments.from_index(np.where(direction > 0, 0, -1)[None], upper=2.0 * loss),
            leader_discount=0.5,
            cost_weight=0.1 / loss,
        )
        certified = fi.global_optimum(problem)
        assert certified.complete
        # More may bring the follower back more often; less buys nothing.
        paid = certified.payments[0] / loss
        assert paid == 0.0 or paid >= 1.0 - 1e-6
        bought = broken_ties(problem, np.array([loss]), 1.0).policies
        worth = problem.evaluate(loss, bought).objective
        assert certified.objective >= worth - 1e-9 * max(1.0, abs(worth))
        solution = fi.solve(problem)
        assert_close(solution.objective, certified.objective, 1e-6)
        assert solution.margins is not None


def test_rewards_of_minus_infinity_are_actions_that_do_not_exist():
    moves = np.zeros((2, 3, 2))
    moves[0, 0, 0] = moves[0, 1, 1] = moves[1, :, 1] = 1.0
    reward = np.array([[1.0, 5.0, -np.inf], [0.0, 0.0, 0.0]])
    mdp = fi.TabularMDP(moves, reward, 0.5, 0)
    assert mdp.available.tolist() == [[True, True, False], [True, True, True]]
    assert_close(fi.best_response(mdp).values, [5.0, 0.0])
    lists = fi.TabularMDP.from_successors([[[0], [1], [0]], [[1]] * 3], np.ones((2, 3, 1)), reward)
    assert np.array_equal(lists.available, mdp.available)
    both = fi.TabularMDP(moves, reward, 0.5, 0, available=[[False, True, True], [True] * 3])
    assert both.available[0].tolist() == [False, True, False]
    with pytest.raises(fi.InputError, match="available"):
        fi.TabularMDP(moves, np.full((2, 3), -np.inf), 0.5)
    with pytest.raises(fi.InputError, match="finite numbers, got inf at state 0, action 1"):
        fi.TabularMDP(moves, np.where(reward == 5.0, np.inf, reward), 0.5)
