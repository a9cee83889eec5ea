"""Seeded problems of mixed kinds: every reward, payment form, cost, budget, tariff and discount."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from rewards import REWARDS, Setting

import fastincentive as fi

#: How payments reach followers.
FORMS = ("one site", "sites", "pairs", "everywhere", "tariff", "tariffs")
COSTS = ("linear", "quadratic", "spend")
#: Budgets are a share of what followers would be paid otherwise.
SHARE = 0.5


class Mixed(NamedTuple):
    """A problem, how policies are parameterized, and of what kind it is."""

    problem: fi.IncentiveProblem
    parameterization: fi.Direct | fi.Softmax
    kind: str


def mixed_problem(seed: int) -> Mixed:
    """Draw problem number ``seed``; forms, costs and rewards take turns."""
    rng = np.random.default_rng([seed, 15])
    form, cost = FORMS[seed % len(FORMS)], COSTS[seed // len(FORMS) % len(COSTS)]
    n = int(rng.choice([1, 2, 2, 3, 3, 4, 5, 8]))
    states = 5 if form == "everywhere" else int(np.exp(rng.uniform(np.log(5.0), np.log(101.5))))
    actions = int(rng.integers(2, 5))
    undiscounted = rng.random() < 0.25
    names = [
        name
        for name in REWARDS
        if not (name == "joint table" and (n > 2 or states > 40))
        and not (name in ("label table", "uneven table") and n > 5)
        and not (name in ("pairwise", "one pair table", "maximum") and n == 1)
    ]
    name = names[int(rng.integers(len(names)))]
    setting = Setting(n, states, actions, sees="own states", idle=1)
    reward = REWARDS[name].draw(rng, setting).reward
    followers = fi.Followers([_follower(rng, states, actions, undiscounted) for _ in range(n)])
    index = _index(rng, form, followers)
    upper = 3.0 if undiscounted or rng.random() < 0.5 else np.inf
    budget = None
    if rng.random() < 0.3:
        budget = float(SHARE * n * rng.uniform(0.2, 1.0))
    costs = {"linear": None, "quadratic": fi.QuadraticCost(), "spend": fi.ExpectedSpend()}
    problem = fi.IncentiveProblem(
        followers,
        reward,
        fi.Payments.from_index(index, upper=upper, budget=budget),
        leader_discount=1.0 if undiscounted and rng.random() < 0.5 else 0.9,
        cost_weight=float(rng.choice([0.05, 0.2, 0.5])),
        cost=costs[cost],
    )
    parameterization = fi.Direct() if rng.random() < 0.7 else fi.Softmax(0.05)
    parts = [form, cost, name, f"n={n}", f"S={states}"]
    parts += ["budget"] * (budget is not None) + ["discount 1"] * undiscounted
    return Mixed(problem, parameterization, ", ".join(parts))


def _follower(
    rng: np.random.Generator, states: int, actions: int, undiscounted: bool
) -> fi.TabularMDP:
    """Draw a follower whose last state is a sink where nothing is earned."""
    successors = rng.integers(states, size=(states, actions, 3))
    successors[:, :, 2] = states - 1
    weights = rng.dirichlet(np.ones(3), size=(states, actions))
    weights[:, :, 2] = 0.02 + 0.1 * weights[:, :, 2]
    successors[-1] = states - 1
    rewards = rng.random((states, actions))
    rewards[-1] = 0.0
    return fi.TabularMDP.from_successors(
        successors,
        weights / weights.sum(axis=2, keepdims=True),
        rewards,
        discount=1.0 if undiscounted else float(rng.choice([0.5, 0.8, 0.95, 0.99])),
        initial=int(rng.integers(states - 1)),
    )


def _index(rng: np.random.Generator, form: str, followers: fi.Followers) -> np.ndarray:
    """Number the payments (n, S, A), -1 where none is made; nobody is paid in the sink."""
    n, states, actions = followers.shape
    index = np.full((n, states, actions), -1)
    for i in range(n):
        places = rng.choice(states - 1, size=min(3, states - 1), replace=False)
        if form == "one site":
            index[i, places[0]] = i
        elif form == "sites":
            index[i, places] = (places.size * i + np.arange(places.size))[:, None]
        elif form == "pairs":
            index[i, places, rng.integers(actions, size=places.size)] = places.size * i + np.arange(
                places.size
            )
        elif form == "everywhere":
            index[i, :-1] = i * (states - 1) * actions + np.arange((states - 1) * actions).reshape(
                states - 1, actions
            )
        elif form == "tariff":
            index[i, places, rng.integers(actions, size=places.size)] = 0
        else:
            index[i, places, rng.integers(actions, size=places.size)] = np.arange(places.size)
    return index
