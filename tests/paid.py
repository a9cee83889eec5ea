"""Followers with payments of every kind: single, posted for several, at a pair."""

import numpy as np
from conftest import random_game
from twin import label_table

import fastincentive as fi

SHAPE = (2, 5, 3)


def mixed_payments(game, **limits):
    """A payment for follower 0 in one state, one posted for both, one at a single pair."""
    index = np.full((len(game.followers), *game.available.shape[1:]), -1)
    index[0, 0] = 0
    index[:, 1] = 1
    index[-1, 2] = 2
    index[~game.available] = -1
    return fi.Payments.from_index(index, **limits)


def two_followers(seed, discount, cost=None, **settings):
    game = random_game(np.random.default_rng(seed), *SHAPE, discount, unavailable=0.3)
    return game, game.problem(mixed_payments(game), cost=cost, cost_weight=0.3, **settings)


def rebuilt(problem, cost, budget=None, upper=np.inf):
    """The same followers, leader and payment index under another cost."""
    labels = problem.leader.labels
    return fi.IncentiveProblem(
        problem.followers,
        fi.LabelReward(labels[:, :, 0], label_table(problem)),
        fi.Payments.from_index(problem.payments.index, upper=upper, budget=budget),
        leader_discount=problem.leader_discount,
        cost_weight=problem.cost_weight,
        cost=cost,
    )
