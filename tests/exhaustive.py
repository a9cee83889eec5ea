"""Small random problems whose answer plain enumeration knows.

All deterministic policies of all followers are listed. A combination of them is had at payments x
where each is worth as much as any other policy of the same follower, which are linear conditions
on x; the cheapest x is a linear programme.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog

import fastincentive as fi


@dataclass
class Model:
    """Followers, a leader and payments as plain arrays; n of S states and A actions."""

    transitions: list[np.ndarray]  # (S, A, S) each
    rewards: list[np.ndarray]  # (S, A) each
    discounts: list[float]
    table: np.ndarray  # (S,) * n, the leader's reward
    leader_discount: float
    index: np.ndarray  # (n, S, A) payment variable, -1 for none
    prices: np.ndarray  # (k,)
    weight: float
    upper: float
    budget: float | None

    def problem(self, cost=None):
        """Return the same as the package sees it."""
        mdps = [
            fi.TabularMDP(*each, 0)
            for each in zip(self.transitions, self.rewards, self.discounts, strict=True)
        ]
        return fi.IncentiveProblem(
            mdps,
            fi.JointReward(self.table),
            fi.Payments.from_index(self.index, upper=self.upper, budget=self.budget),
            leader_discount=self.leader_discount,
            cost_weight=self.weight,
            cost=fi.LinearCost(self.prices) if cost is None else cost,
        )


def random_model(rng, n, paid, shared=False, most=0.99, states=3, actions=2):
    """Integer or normal rewards, sure or random moves; ``paid`` payments to each, or for all."""
    whole = rng.random() < 0.6

    def rewards(*shape):
        return rng.integers(-2, 3, shape).astype(float) if whole else rng.normal(size=shape)

    transitions = []
    for _ in range(n):
        if rng.random() < 0.5:
            transitions.append(np.eye(states)[rng.integers(0, states, (states, actions))])
        else:
            transitions.append(rng.dirichlet(np.full(states, 0.5), (states, actions)))
    index = np.full((n, states, actions), -1)
    for i in range(n):
        for j in range(paid):
            where = rng.integers(states), (rng.integers(actions) if rng.random() < 0.4 else None)
            k = j if shared else i * paid + j
            if where[1] is None:
                index[i, where[0]] = k
            else:
                index[i, where[0], where[1]] = k
    # Variables that another one has overwritten are left out.
    used, number = np.unique(index[index >= 0], return_inverse=True)
    index[index >= 0] = number
    weight = float(rng.choice([0.0, 0.1, 0.5, 1.0], p=[0.1, 0.3, 0.3, 0.3]))
    budget = float(rng.choice([0.5, 2.0, 5.0])) if rng.random() < 0.3 else None
    bounded = weight == 0.0 and budget is None
    discounts = np.array([0.0, 0.5, 0.9, 0.99, 0.9999, 1.0 - 1e-6, 1.0 - 1e-8])
    discounts = discounts[discounts <= most]
    return Model(
        transitions,
        [rewards(states, actions) for _ in range(n)],
        [float(rng.choice(discounts[1:])) for _ in range(n)],
        np.round(3.0 * rng.normal(size=(states,) * n), 1),
        float(rng.choice(discounts)),
        index,
        np.ones(used.size) if rng.random() < 0.5 else rng.choice([0.05, 0.5, 2.0], used.size),
        weight,
        float(rng.choice([1.0, 3.0, 10.0])) if bounded or rng.random() < 0.3 else np.inf,
        budget,
    )


@dataclass
class Response:
    """A policy where it comes: worth constant + slope . x to its follower."""

    actions: tuple[int, ...]
    chain: np.ndarray  # (S, S)
    constant: float
    slope: np.ndarray  # (k,)


def responses(model, i):
    """All policies of follower i, of those that differ only where they never come one."""
    moves, reward = model.transitions[i], model.rewards[i]
    states, actions = reward.shape
    found = {}
    for pick in itertools.product(range(actions), repeat=states):
        chain = moves[np.arange(states), pick]
        met, frontier = {0}, [0]
        while frontier:
            fresh = set(np.flatnonzero(chain[frontier.pop()]).tolist()) - met
            met |= fresh
            frontier += fresh
        law = tuple(a if s in met else -1 for s, a in enumerate(pick))
        if law in found:
            continue
        visits = np.linalg.solve(np.eye(states) - model.discounts[i] * chain.T, np.eye(states)[0])
        slope = np.zeros(model.prices.size)
        for s, a in enumerate(pick):
            if model.index[i, s, a] >= 0:
                slope[model.index[i, s, a]] += visits[s]
        constant = float(visits @ reward[np.arange(states), pick])
        found[law] = Response(pick, chain, constant, slope)
    return list(found.values())


def leader_value(model, chosen):
    """Value of the product chain, from all first states."""
    joint = np.eye(1)
    for each in chosen:
        joint = np.kron(joint, each.chain)
    size = joint.shape[0]
    return float(
        np.linalg.solve(np.eye(size) - model.leader_discount * joint, model.table.ravel())[0]
    )


def cheapest(model, chosen, lists):
    """Cheapest payments at which all of these are best responses, None if there are none."""
    rows, limits = [], []
    for mine, others in zip(chosen, lists, strict=True):
        for other in others:
            # In units in which a step of reward is about 1.
            size = max(1.0, np.abs(other.slope - mine.slope).max())
            rows.append((other.slope - mine.slope) / size)
            limits.append((mine.constant - other.constant) / size)
    if model.budget is not None:
        rows.append(model.prices)
        limits.append(model.budget)
    answer = linprog(
        model.prices,
        np.array(rows),
        np.array(limits),
        bounds=[(0.0, None if np.isinf(model.upper) else model.upper)] * model.prices.size,
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    return answer.x if answer.status == 0 else None


def optimum(model):
    """(objective, payments) of the best combination of responses, ties for the leader."""
    lists = [responses(model, i) for i in range(len(model.rewards))]
    ranked = sorted(
        ((leader_value(model, chosen), chosen) for chosen in itertools.product(*lists)),
        key=lambda each: -each[0],
    )
    best, at = -np.inf, None
    for value, chosen in ranked:
        if value <= best:
            break
        x = cheapest(model, chosen, lists)
        if x is not None and value - model.weight * float(model.prices @ x) > best:
            best, at = value - model.weight * float(model.prices @ x), x
    return best, at


def guaranteed(model, lists, x, near=1e-10):
    """Objective at payments x, ties against the leader."""
    tied = []
    for each in lists:
        worth = np.array([response.constant + response.slope @ x for response in each])
        level = worth.max() - near * max(1.0, np.abs(worth).max())
        tied.append([each[k] for k in np.flatnonzero(worth >= level)])
    worst = min(leader_value(model, chosen) for chosen in itertools.product(*tied))
    return worst - model.weight * float(model.prices @ x)


def breakpoints(model, lists):
    """Where on its own payment each follower's best response changes, 0 included."""
    found = []
    for k in range(model.prices.size):
        points = [0.0]
        for each in lists:
            for one, other in itertools.combinations(each, 2):
                rise = other.slope[k] - one.slope[k]
                if abs(rise) > 1e-9:
                    t = (one.constant - other.constant) / rise
                    worth = max(response.constant + response.slope[k] * t for response in each)
                    here = one.constant + one.slope[k] * t
                    if 0.0 < t <= model.upper and here >= worth - 1e-9 * max(1.0, abs(worth)):
                        points.append(t)
        found.append(np.unique(points))
    return found
