"""The frozen cases of every benchmark, with checksums of their inputs.

A case whose inputs change is another case: figures before and after would not be comparable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fastincentive import models
from fastincentive._arrays import FloatArray
from fastincentive.bench.random_mdps import random_mdp
from fastincentive.errors import InputError, invalid
from fastincentive.followers.followers import Followers
from fastincentive.followers.mdp import TabularMDP
from fastincentive.leader.additive import AdditiveReward
from fastincentive.leader.base import LeaderReward
from fastincentive.leader.congestion import CongestionReward
from fastincentive.leader.counts import CountReward
from fastincentive.leader.product import ProductReward
from fastincentive.leader.tables import JointReward
from fastincentive.methods._starts import best_response_policies
from fastincentive.problem.payments import Payments
from fastincentive.problem.problem import IncentiveProblem

__all__ = [
    "CHECKSUMS",
    "DISCOUNTS",
    "FLEETS",
    "GRIDS",
    "LEADERS",
    "MODELS",
    "LeaderCase",
    "answers",
    "build",
    "checksum",
    "eighth",
    "fleet",
    "leader_case",
    "model",
    "moved_rewards",
    "payment_walk",
    "policy",
    "random_graph",
    "robot_grid",
    "stacked",
]

#: Problem -> checksum of the inputs.
CHECKSUMS = {
    "paper": "99eb420352c0aaf6",
    "random-2x50": "505e57862fb9b0a8",
    "random-8x10": "b4d4d766190b8333",
}
#: Number of followers -> checksum of the inputs of ``fleet``.
FLEETS = {100: "4f9c0459046c0392", 1000: "33e935b67d4ee4cc"}
#: Size of the grid -> checksum of the inputs of ``robot_grid``.
GRIDS = {
    6: "c1d836886d498054",
    10: "9cc5790f1c9ca3e0",
    15: "a2f218029c3d42ed",
    30: "649c4b569e501df6",
    100: "5f4301c0e10d020d",
    300: "d3554b2220a25ef5",
    1000: "204d1f18b4fcf895",
}
#: (followers, size of the grid) -> checksum of the inputs of ``leader_case``.
LEADERS = {
    (2, 6): "e59e3fe873b81821",
    (2, 15): "3b4413e103aa1ae1",
    (2, 30): "ab8c07be938d395b",
    (3, 6): "d8ab3784f0210262",
}
#: (kind, states) -> checksum of the inputs of ``random_graph``.
RANDOM_GRAPHS = {
    ("sparse", 300): "9c8039c14a26194a",
    ("sparse", 1022): "412d7a2a220f7d82",
    ("dense", 300): "eb26fcd5c860d62d",
    ("dense", 1022): "d5aac320db92a55a",
    ("ragged", 300): "d23e5fbb13c840b4",
    ("ragged", 1022): "577b217b87cae508",
    ("hub", 300): "d2d71620de451634",
    ("hub", 1022): "deb2a6e7bdd5719e",
    ("ring", 300): "1bcfc30689d2100e",
    ("ring", 1022): "aa75aa2e542acfea",
    ("local", 300): "43f32ce1db0d4340",
    ("local", 1022): "34e477097122ef7a",
    ("deterministic", 300): "291f7277ab3c1910",
    ("deterministic", 1022): "6de846cb313c7636",
    ("clusters", 300): "84d83d874353c8af",
    ("clusters", 1022): "e53e73eec2ca1f62",
    ("tree", 300): "c8e732992154406f",
    ("tree", 1022): "e87a3988da3e800c",
}
#: Model on which methods are compared -> smallest profile that does.
MODELS = {
    "example1": "smoke",
    "paper": "smoke",
    "gridworld": "smoke",
    "random-2x20": "smoke",
    "random-3x8": "smoke",
    "crowd-6": "smoke",
    "demand-6x8": "smoke",
    "crowd-12": "regular",
    "demand-10x12": "regular",
}
#: The same -> checksum of the inputs; that of the paper's grid is in ``CHECKSUMS``.
MODEL_INPUTS = {
    "example1": "006f6778ab887cd8",
    "gridworld": "4591ea9db8d2c31e",
    "random-2x20": "45d100125fa2169b",
    "random-3x8": "4b289e5239844171",
    "crowd-6": "ad4bdd038a310f2c",
    "demand-6x8": "ba25aa8bb48fc193",
    "crowd-12": "f5d68de2847ecde0",
    "demand-10x12": "7ad9dcb39f2886e2",
}
#: Discounts of the followers on robot grids.
DISCOUNTS = (0.95, 0.99, 0.999)
SLIP = 0.1


class LeaderCase(NamedTuple):
    """A problem whose leader sees joint states, and policies to evaluate."""

    problem: IncentiveProblem
    table: FloatArray  # (S,) * n
    policies: FloatArray  # (n, S, A)


def build(name: str) -> IncentiveProblem:
    """Build a problem by name."""
    if name == "paper":
        problem = models.paper_gridworld()
    elif name == "random-2x50":
        problem = models.random_problem(n=2, n_states=50, n_actions=4, branching=4, rng=1)
    elif name == "random-8x10":
        problem = models.random_problem(n=8, n_states=10, n_actions=3, branching=3, rng=2)
    else:
        raise invalid("case", f"one of {', '.join(CHECKSUMS)}", name)
    _check(f"case {name}", checksum(problem), CHECKSUMS[name])
    return problem


def model(name: str) -> IncentiveProblem:
    """Build a model on which methods are compared, by its name in ``MODELS``."""
    kind, _, size = name.partition("-")
    if kind == "paper":
        return build("paper")
    if name not in MODELS:
        raise invalid("model", f"one of {', '.join(MODELS)}", name)
    n, _, width = size.partition("x")
    if kind == "example1":
        problem = models.example1()
    elif kind == "gridworld":
        problem = models.gridworld()
    elif kind == "random":
        # Payments cost less than by default: at that price none is worth it.
        problem = models.random_problem(int(n), int(width), rng=1, cost_weight=0.02)
    elif kind == "crowd":
        problem = models.crowd(int(n))
    else:
        problem = models.demand_response(int(n), int(width), work=2)
    _check(f"model {name}", checksum(problem), MODEL_INPUTS[name])
    return problem


def fleet(n: int) -> IncentiveProblem:
    """Place n robots on random 6x6 grids; the leader wants an eighth of them at lesser goals.

    One payment each; a count-like reward (steep up to n / 8, falling beyond) plus an additive one.
    """
    rng = np.random.default_rng(n)
    layouts = []
    for _ in range(20):
        cells = rng.permutation(36)
        drawn = np.full(36, ".")
        drawn[cells[0]], drawn[cells[1:3]], drawn[cells[3:8]] = "G", "L", "F"
        start = divmod(int(cells[8]), 6)
        sorts = [models.grid_mdp(_layout(drawn), slip, start) for slip in (0.02, 0.05, 0.1, 0.15)]
        layouts.append((cells, sorts))
    mdps, sites = [], []
    labels = np.zeros((n, 37), np.int64)
    bonus = np.zeros((n, 37))
    for i in range(n):
        cells, sorts = layouts[i % 20]
        mdps.append(
            sorts[rng.integers(4)].replace(
                discount=rng.choice([0.9, 0.95, 0.98]), initial=int(cells[8 + rng.integers(20)])
            )
        )
        sites.append([int(cells[1])])
        labels[i, cells[1:3]] = 1
        bonus[i, cells[1:3]] = rng.uniform()
    problem = IncentiveProblem(
        mdps,
        CountReward(labels, eighth(n)) + AdditiveReward(bonus),
        Payments.at_states(sites),
        leader_discount=0.98,
    )
    _check(f"fleet of {n}", checksum(problem), FLEETS[n])
    return problem


def eighth(n: int) -> FloatArray:
    """Return (n + 1,): the worth of each count, steep up to n / 8 and falling beyond."""
    counts = np.arange(n + 1)
    return np.asarray(2.0 * np.minimum(counts, n / 8) - np.maximum(counts - n / 8, 0.0))


def _layout(drawn: np.ndarray) -> str:
    size = round(drawn.size**0.5)
    return "\n".join("".join(row) for row in drawn.reshape(size, size))


class _Drawn(NamedTuple):
    """A drawn size x size map: one goal, two lesser goals, 15 % fires."""

    cells: np.ndarray  # (size * size,) a permutation: goal, lesser goals, fires, free cells
    layout: str


@lru_cache(maxsize=2)
def _draw(size: int) -> _Drawn:
    cells = np.random.default_rng(size).permutation(size * size)
    drawn = np.full(size * size, ".")
    drawn[cells[0]], drawn[cells[1:3]] = "G", "L"
    drawn[cells[3 : 3 + round(0.15 * size * size)]] = "F"
    return _Drawn(cells, _layout(drawn))


@lru_cache(maxsize=2)
def _robot(size: int) -> TabularMDP:
    drawn = _draw(size)
    start = divmod(int(drawn.cells[-1]), size)
    mdp = models.grid_mdp(drawn.layout, SLIP, start, DISCOUNTS[0])
    model = mdp.transition
    arrays = (model.row_start, model.successor, model.probability, mdp.reward, mdp.initial)
    _check(f"robot grid of size {size}", _digest(arrays), GRIDS[size])
    return mdp


def robot_grid(size: int, discount: float = 0.95) -> TabularMDP:
    """One robot on a random size x size grid: slip 0.1, one goal, two lesser goals, 15 % fires.

    The last call's model is kept, so that another discount costs nothing.
    """
    return _robot(size).replace(discount=discount)


def random_graph(kind: str, states: int, discount: float) -> TabularMDP:
    """Draw an MDP on a random graph of one of ``random_mdps.KINDS``."""
    mdp = random_mdp(kind, 0, states, discount)
    model = mdp.transition
    arrays = (model.row_start, model.successor, model.probability, mdp.reward)
    _check(f"random {kind} graph of {states} states", _digest(arrays), RANDOM_GRAPHS[kind, states])
    return mdp


def policy(size: int, kind: str) -> FloatArray:
    """Draw a stochastic policy (S, A) on ``robot_grid(size)``.

    Parameters
    ----------
    size : int
    kind : "near-greedy" or "random"
        Moves towards the nearest goal of either kind with probability 0.9 (shared where two
        moves near it) and any move with 0.1; or rows drawn from a flat Dirichlet distribution.
    """
    states = size * size + 1
    if kind == "random":
        return np.random.default_rng([size, 1]).dirichlet(np.ones(4), size=states)
    if kind != "near-greedy":
        raise invalid("kind", '"near-greedy" or "random"', repr(kind))
    rows, columns = np.divmod(np.arange(size * size), size)
    goals = np.divmod(_draw(size).cells[:3], size)

    def distance(r: np.ndarray, c: np.ndarray) -> np.ndarray:
        each = np.abs(r[:, None] - goals[0]) + np.abs(c[:, None] - goals[1])
        return np.asarray(each.min(axis=1))

    here = distance(rows, columns)
    nears = np.ones((states, 4))
    for a, (dr, dc) in enumerate(((-1, 0), (0, 1), (1, 0), (0, -1))):
        nears[:-1, a] = distance(rows + dr, columns + dc) < here
    nears[~nears.any(axis=1)] = 1.0
    return np.asarray(0.9 * nears / nears.sum(axis=1, keepdims=True) + 0.025)


def moved_rewards(mdp: TabularMDP, size: int) -> FloatArray:
    """Rewards (S, A) of a robot whose payments at the lesser goals have moved by 1e-3."""
    reward = mdp.reward.copy()
    reward[_draw(size).cells[1:3]] += 1e-3
    return reward


def payment_walk(mdp: TabularMDP, size: int) -> Iterator[FloatArray]:
    """Rewards (1, S, A) without end: payments at the lesser goals, moved by 1e-3 up or down each.

    The first is the robot's own rewards.
    """
    rng, sites, paid = np.random.default_rng([size, 2]), _draw(size).cells[1:3], np.zeros(2)
    while True:
        reward = mdp.reward.copy()
        reward[sites] += paid[:, None]
        yield reward[None]
        paid += rng.choice([-1e-3, 1e-3], 2)


def stacked(n: int, size: int, reward: str = "count") -> IncentiveProblem:
    """Stack n robots that share the model of ``robot_grid(size)``, each with a start of its own.

    Parameters
    ----------
    n, size : int
    reward : "count", "additive", "congestion" or "product"
        The leader wants an eighth of them at lesser goals, and any of them there a little; 1 for
        each there; N - N^2 / n for N of them at each of the two; or the product, over all, of 1
        elsewhere and 1 - k / 4n there, less 1, summed over k = 1..8.
    """
    mdp, cells = robot_grid(size), _draw(size).cells
    starts = np.random.default_rng([n, size]).choice(cells[3:], n)
    labels = np.zeros(size * size + 1, np.int64)
    labels[cells[1:3]] = 1
    leader: LeaderReward
    if reward == "count":
        leader = CountReward(labels, eighth(n)) + AdditiveReward(0.1 * labels)
    elif reward == "additive":
        leader = AdditiveReward(labels)
    elif reward == "congestion":
        resources = np.full(labels.size, -1)
        resources[cells[1:3]] = 0, 1
        leader = CongestionReward.polynomial(resources, [0.0, 1.0, -1.0 / n])
    elif reward == "product":
        factors = 1.0 - np.arange(9)[:, None] * labels / (4.0 * n)
        leader = ProductReward(factors, np.r_[-8.0, np.ones(8)])
    else:
        raise invalid("reward", '"count", "additive", "congestion" or "product"', repr(reward))
    return IncentiveProblem(
        Followers([mdp.replace(initial=int(s)) for s in starts]),
        leader,
        Payments.at_states([[int(cells[1])]] * n),
        leader_discount=0.98,
    )


def leader_case(n: int, size: int, discount: float, kind: str = "near-greedy") -> LeaderCase:
    """Give n robots on one grid a dense random reward on joint states, 0 when all are gone.

    Slips are 0.1, 0.05 and 0.15, starts the last of the permuted cells.

    Parameters
    ----------
    n, size : int
    discount : float
        Of the leader.
    kind : str
        Of the policies, see ``policy``; random ones differ between followers.
    """
    drawn = _draw(size)
    mdps = [
        models.grid_mdp(drawn.layout, slip, divmod(int(drawn.cells[-1 - i]), size))
        for i, slip in enumerate((0.1, 0.05, 0.15)[:n])
    ]
    table = np.random.default_rng([n, size]).normal(size=(size * size + 1,) * n)
    table[(-1,) * n] = 0.0
    problem = IncentiveProblem(
        mdps,
        JointReward(table),
        Payments.at_states([[int(drawn.cells[1])]] * n),
        leader_discount=discount,
    )
    found = _digest((*_inputs(problem), table))
    _check(f"leader case {n}, {size}", found, LEADERS[n, size])
    one = policy(size, kind)
    # Rolled over the actions, the same rows make other random policies.
    rolled = [np.roll(one, i if kind == "random" else 0, axis=1) for i in range(n)]
    return LeaderCase(problem, table, np.stack(rolled))


def _check(what: str, found: str, frozen: str) -> None:
    if found != frozen:
        raise InputError(f"{what}: the inputs have checksum {found}, not {frozen}")


def _digest(arrays: Iterable[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def checksum(problem: IncentiveProblem) -> str:
    """Digest of everything a case is made of."""
    return _digest((*_inputs(problem), problem.leader.labels, problem.payments.index))


def _inputs(problem: IncentiveProblem) -> list[np.ndarray]:
    """Arrays of the followers; not what else a version of the package may pack with them."""
    packed = problem.followers.packed
    names = "row_start successor probability available absorbing sink model discount initial"
    return [*(getattr(packed, name) for name in names.split()), problem.followers.rewards]


def answers(problem: IncentiveProblem) -> FloatArray:
    """Best responses to payments of 2."""
    return best_response_policies(problem, np.full(problem.payments.size, 2.0))
