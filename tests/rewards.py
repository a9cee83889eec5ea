"""All leader rewards, one line each, beside what each is by the definition in its docstring.

A builder draws a reward for a ``Setting`` and returns it with a plain function of the followers'
states and actions, which shares no code with the package. ``test_leader_rewards.py`` asks all of
them the same questions, ``test_simulation.py`` draws trajectories.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

import fastincentive as fi


@dataclass(frozen=True)
class Setting:
    """Followers, or n types of them, and what a reward may see."""

    n: int
    states: int
    actions: int
    sees: str = "own actions"  # or "states" (of all alike), "own states"
    idle: int = 0  # nothing is earned while all are in the last so many states
    counts: tuple[int, ...] | None = None  # followers of each type

    @property
    def shape(self):
        """Shape of an array that a reward is given."""
        shapes = {
            "states": (self.states,),
            "own states": (self.n, self.states),
            "own actions": (self.n, self.states, self.actions),
        }
        return shapes[self.sees]

    @property
    def everybody(self):
        """Number of followers."""
        return self.n if self.counts is None else sum(self.counts)

    def rested(self, array, value=0):
        """Fill a value in where a follower is idle; axes before those of ``shape`` are allowed."""
        axis = -2 if self.sees == "own actions" else -1
        np.moveaxis(array, axis, 0)[self.states - self.idle :] = value
        return array

    def seen(self, array, states, actions):
        """Look an array of ``shape`` up for states and actions (M, N) of all followers."""
        if self.sees == "states":
            return array[states]
        counts = [1] * self.n if self.counts is None else self.counts
        each = np.repeat(np.arange(self.n), counts)
        if self.sees == "own states":
            return array[each, states]
        return array[each, states, actions]


class Drawn(NamedTuple):
    """A reward and what it is: (M,) of states and actions (M, N)."""

    reward: fi.LeaderReward
    earned: Callable


def additive(rng, setting):
    """Few distinct values, so that states share labels."""
    rewards = setting.rested(rng.normal(size=3)[rng.integers(3, size=setting.shape)])
    return Drawn(fi.AdditiveReward(rewards), lambda s, a: setting.seen(rewards, s, a).sum(axis=1))


def _counted(rng, setting, labels):
    """Draw labels and values of the numbers of followers with labels 1.."""
    n = setting.everybody
    label = setting.rested(rng.integers(labels, size=setting.shape))
    values = rng.normal(size=(n + 1,) * (labels - 1))
    values.flat[0] *= setting.idle == 0

    def earned(states, actions):
        seen = setting.seen(label, states, actions)
        return values[tuple((seen == k).sum(axis=1) for k in range(1, labels))]

    return Drawn(fi.CountReward(label, values), earned)


def count(rng, setting):
    return _counted(rng, setting, 2)


def label_counts(rng, setting):
    return _counted(rng, setting, 3)


def _congested(rng, setting, functions, number, make):
    """Draw resources; ``functions`` (4, N+1) or (1, N+1) are what each earns by its number."""
    resources = rng.integers(-1, 4, size=setting.shape)
    resources.flat[0] = 3
    setting.rested(resources, -1)
    functions = np.broadcast_to(functions, (4, number))

    def earned(states, actions):
        seen = setting.seen(resources, states, actions)
        return sum(functions[r][(seen == r).sum(axis=1)] for r in range(4))

    return Drawn(make(resources), earned)


def _table(rng, setting, rows):
    values = rng.normal(size=(rows, setting.everybody + 1))
    values[:, 0] *= setting.idle == 0
    given = values if rows > 1 else values[0]
    return _congested(
        rng,
        setting,
        values,
        values.shape[1],
        lambda resources: fi.CongestionReward(resources, given),
    )


def congestion(rng, setting):
    return _table(rng, setting, 1)


def congestions(rng, setting):
    return _table(rng, setting, 4)


def _polynomial(rng, setting, rows):
    number = np.arange(setting.everybody + 1.0)
    coefficients = rng.normal(size=(rows, 4)) / max(1.0, number[-1] / 4.0) ** np.arange(4)
    coefficients[:, 0] *= setting.idle == 0
    given = coefficients if rows > 1 else coefficients[0]
    return _congested(
        rng,
        setting,
        coefficients @ number ** np.arange(4)[:, None],
        number.size,
        lambda resources: fi.CongestionReward.polynomial(resources, given),
    )


def polynomial(rng, setting):
    return _polynomial(rng, setting, 1)


def polynomials(rng, setting):
    return _polynomial(rng, setting, 4)


def _multiplied(rng, setting, terms):
    """Factors 0 and negative ones for a few followers; near 1 for many."""
    some = np.array([-1.5, 0.0, 0.25, 1.0, 3.0] if setting.n < 10 else [0.9, 0.95, 1.0, 1.1])
    factors = some[rng.integers(some.size, size=(terms, *setting.shape))]
    weights = rng.normal(size=terms)
    if setting.idle and setting.n < 10:
        setting.rested(factors)
    elif setting.idle:
        weights[-1] = -weights[:-1].sum()
        setting.rested(factors, 1.0)

    def earned(states, actions):
        each = [setting.seen(factor, states, actions).prod(axis=1) for factor in factors]
        return sum(weight * found for weight, found in zip(weights, each, strict=True))

    return Drawn(fi.ProductReward(factors, weights), earned)


def product(rng, setting):
    return _multiplied(rng, setting, 1 if setting.n < 10 else 2)


def products(rng, setting):
    return _multiplied(rng, setting, 3)


def _met(rng, setting, shared):
    """Draw a graph with repeated edges, both ways round; the last label is that of idle ones."""
    n, labels = setting.everybody, 4
    first = rng.integers(n, size=2 * n if n > 1 else 0)
    edges = np.stack([first, (first + rng.integers(1, max(n, 2), size=first.size)) % n], axis=1)
    if n > 1:
        edges[-1] = edges[0, ::-1]
    if n > 4:
        edges = edges[(edges != n // 2).all(axis=1)]  # one is alone
    tables = rng.normal(size=(len(edges), labels, labels))
    if shared:
        tables[:] = rng.normal(size=(labels, labels))
    tables[:, -1, -1] *= setting.idle == 0
    label = setting.rested(rng.integers(labels, size=setting.shape), labels - 1)

    def earned(states, actions):
        seen = setting.seen(label, states, actions)
        pairs = zip(edges, tables, strict=True)
        return sum(
            (table[seen[:, i], seen[:, j]] for (i, j), table in pairs), np.zeros(len(states))
        )

    given = np.zeros((labels, labels)) if shared and n == 1 else tables[0] if shared else tables
    return Drawn(fi.PairwiseReward(edges, given, label), earned)


def pairwise(rng, setting):
    return _met(rng, setting, shared=False)


def one_pair_table(rng, setting):
    return _met(rng, setting, shared=True)


def maximum(rng, setting):
    """Ties within followers and between them; the smallest value half of the time."""
    smallest = bool(rng.integers(2))
    label = setting.rested(rng.integers(4, size=setting.shape))
    values = rng.integers(-6, 7, size=(setting.n, 4)) / 2.0
    values[:, 0] *= setting.idle == 0
    counts = [1] * setting.n if setting.counts is None else setting.counts
    each = np.repeat(np.arange(setting.n), counts)

    def earned(states, actions):
        seen = values[each, setting.seen(label, states, actions)]
        return seen.min(axis=1) if smallest else seen.max(axis=1)

    return Drawn(fi.MaxReward(label, values, smallest=smallest), earned)


def label_table(rng, setting):
    """The followers have different numbers of labels."""
    counts = np.arange(setting.n) % 2 + (2 if setting.sees != "states" else 3)
    if setting.sees == "states":
        counts[:] = 3
    rows = counts.reshape((setting.n,) + (1,) * (len(setting.shape) - 1))
    label = rng.integers(1, rows if setting.sees != "states" else 3, size=setting.shape)
    setting.rested(label)
    table = rng.normal(size=tuple(counts))
    table[(0,) * setting.n] = 0.0
    return Drawn(
        fi.LabelReward(label, table), lambda s, a: table[tuple(setting.seen(label, s, a).T)]
    )


def uneven_table(rng, setting):
    """One follower has many more labels than the others."""
    counts = np.full(setting.n, 3)
    counts[-1] = round(4096.0 ** (1.0 / setting.n)) + 3
    label = rng.integers(1, 3, size=setting.shape)
    setting.rested(label)
    if setting.sees != "states":
        label[-1] = np.where(label[-1] > 1, counts[-1] - 1, label[-1])
    table = rng.normal(size=tuple(counts))
    table[(0,) * setting.n] = 0.0
    return Drawn(
        fi.LabelReward(label, table), lambda s, a: table[tuple(setting.seen(label, s, a).T)]
    )


def joint(rng, setting):
    """Over states and actions where actions are seen."""
    by_action = setting.sees == "own actions"
    one = (setting.states, setting.actions) if by_action else (setting.states,)
    table = rng.normal(size=one * setting.n)
    rest = slice(setting.states - setting.idle, None)
    table[((rest, slice(None)) if by_action else (rest,)) * setting.n] = 0.0

    def earned(states, actions):
        both = np.stack([states, actions], axis=2).reshape(len(states), -1)
        return table[tuple((both if by_action else states).T)]

    return Drawn(fi.JointReward(table), earned)


def total(rng, setting):
    """A sum of parts that see different things."""
    first, second = additive(rng, setting), count(rng, setting)
    third = (polynomial if setting.n >= 10 or setting.counts else label_table)(rng, setting)
    return Drawn(
        2.0 * first.reward + second.reward * -1.5 + -0.5 * third.reward,
        lambda s, a: (
            2.0 * first.earned(s, a) - 1.5 * second.earned(s, a) - 0.5 * third.earned(s, a)
        ),
    )


class Registered(NamedTuple):
    """What is asked of a reward."""

    draw: Callable  # (rng, setting) -> Drawn
    types: bool = True  # whether it knows types of followers with counts
    many: bool = True  # whether fifty followers are no trouble
    tight: bool = True  # whether its magnitude is the largest |R| that labels allow


REWARDS = {
    "additive": Registered(additive),
    "count": Registered(count),
    "label counts": Registered(label_counts),
    "congestion": Registered(congestion, tight=False),
    "congestions": Registered(congestions, tight=False),
    "polynomial": Registered(polynomial, tight=False),
    "polynomials": Registered(polynomials, tight=False),
    "product": Registered(product),
    "products": Registered(products, tight=False),
    "pairwise": Registered(pairwise, types=False, tight=False),
    "one pair table": Registered(one_pair_table, types=False, tight=False),
    "maximum": Registered(maximum),
    "label table": Registered(label_table, types=False, many=False),
    "uneven table": Registered(uneven_table, types=False, many=False),
    "joint table": Registered(joint, types=False, many=False),
    "sum": Registered(total, tight=False),
}


# What tests of rewards share


def contract(table, laws, *kept):
    """E[R | pairs of the followers kept], the others at their laws (n, S*A)."""
    letters = string.ascii_lowercase[: table.ndim]
    others = [i for i in range(table.ndim) if i not in kept]
    given = ",".join([letters, *[letters[i] for i in others]])
    return np.einsum(
        f"{given}->{''.join(letters[i] for i in kept)}", table, *[laws[i] for i in others]
    )


def random_laws(rng, horizon, n, size):
    """Random laws (T, n, size); in the last two rows some followers, and all, are certain."""
    laws = rng.dirichlet(np.ones(size), size=(horizon, n))
    laws[-1] = np.eye(size)[rng.integers(size, size=n)]
    laws[-2, ::2] = np.eye(size)[rng.integers(size, size=(n + 1) // 2)]
    return laws


def random_marginals(rng, horizon, bound):
    return random_laws(rng, horizon, len(bound.labels), bound.n_labels)


def best_choice(bound, candidates, weights):
    """Return the largest weighted reward over all choices of one candidate per follower."""
    return max(
        float(weights @ bound.expectations(np.stack(choice, axis=1))[0])
        for choice in itertools.product(*candidates)
    )
