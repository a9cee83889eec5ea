"""Scaling in the number of followers n, the number of states S, and the leader's horizon."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import Any

import numpy as np

from fastincentive.bench import cases
from fastincentive.bench.case import Case
from fastincentive.bench.certificates import bellman_residual, evaluation_residual, policy_matrix
from fastincentive.bench.leader_twin import leader_error, twin
from fastincentive.bench.timing import Contender, Trial
from fastincentive.followers.followers import Followers

__all__ = ["exponents", "scaling_cases"]

FOLLOWERS = ((2, "smoke"), (8, "smoke"), (32, "smoke"), (128, "regular"), (512, "regular"))
CROWDS = ((100, "smoke"), (1000, "smoke"), (10_000, "regular"), (100_000, "large"))
REWARDS = ("additive", "congestion", "product")
SIZES = ((6, "smoke"), (10, "smoke"), (30, "smoke"), (100, "regular"), (300, "large"))
LEADER_DISCOUNTS = ((0.9, "smoke"), (0.95, "smoke"), (0.98, "smoke"), (0.99, "regular"))
_GAMMA, _KIND = 0.95, "near-greedy"


def scaling_cases() -> list[Case]:
    """Points of each curve; the place on it is n, S, or the leader's effective horizon."""
    found = []
    for n, profile in FOLLOWERS:
        for what in ("best-responses", "evaluate", "leader-value"):
            name = f"{what} in n"
            run = partial(_many, what, n)
            found.append(Case(f"{name}/{n}", profile, run, (name, float(n))))
    for reward in REWARDS:
        name = f"leader-gradient, {reward} reward, in n"
        for n, profile in CROWDS:
            run = partial(_crowd, reward, n)
            found.append(Case(f"{name}/{n}", profile, run, (name, float(n))))
    for size, profile in SIZES:
        states = size * size + 1
        for what in ("best-responses", "evaluate"):
            name = f"{what} in S"
            run = partial(_large, what, size)
            found.append(Case(f"{name}/{states}", profile, run, (name, float(states))))
    name = "leader-gradient in horizon"
    for gamma, profile in LEADER_DISCOUNTS:
        steps = round(1.0 / (1.0 - gamma))
        run = partial(_long, gamma)
        found.append(Case(f"{name}/{steps}", profile, run, (name, float(steps))))
    return found


def exponents(records: list[dict[str, Any]]) -> dict[str, float]:
    """Slope of log(median seconds) over log(place) of each curve with two points or more."""
    curves: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for each in records:
        times = each["contenders"][0].get("quartiles")
        if each["series"] is not None and times is not None:
            curves[each["series"][0]].append((each["series"][1], times[1]))
    return {
        name: _slope(np.log(np.array(points))) for name, points in curves.items() if len(points) > 1
    }


def _slope(points: np.ndarray) -> float:
    """Least-squares slope through points (k, 2)."""
    x, y = (points - points.mean(axis=0)).T
    return float(x @ y / (x @ x))


def _followers_trial(what: str, followers: Followers, policy: np.ndarray) -> Trial:
    """Best responses, or values and occupancy of one policy for all."""
    policies = np.broadcast_to(policy, followers.shape).copy()

    def best_error(found: Any) -> float:
        rows = zip(followers, found.values, found.actions, strict=True)
        return max(bellman_residual(mdp, values, actions) for mdp, values, actions in rows)

    def evaluation_error(found: Any) -> float:
        moves = policy_matrix(followers[0], policy)
        rows = zip(followers, found.values, found.visits, strict=True)
        return max(evaluation_residual(mdp, policy, v, d, moves) for mdp, v, d in rows)

    if what == "best-responses":
        best = Contender("fastincentive", partial(followers.best_responses, followers.rewards))
        return Trial([best], best_error, 1e-10)
    run = partial(followers.evaluate, followers.rewards, policies)
    return Trial([Contender("fastincentive", run)], evaluation_error, 1e-10)


def _many(what: str, n: int) -> Trial:
    problem, policy = cases.stacked(n, 6), cases.policy(6, _KIND)
    if what != "leader-value":
        return _followers_trial(what, problem.followers, policy)
    policies = np.broadcast_to(policy, problem.followers.shape).copy()
    expected = _counted(problem, policy)
    ours = Contender("fastincentive", lambda: problem.leader_pass(policies, gradient=False).value)
    return Trial([ours], lambda value: abs(value - expected) / max(1.0, abs(expected)), 1e-10)


def _crowd(reward: str, n: int) -> Trial:
    """Value and gradient for up to 100,000 robots."""
    problem, policy = cases.stacked(n, 6, reward), cases.policy(6, _KIND)
    policies = np.broadcast_to(policy, problem.followers.shape).copy()
    expected = _rewarded(problem, policy, reward)

    def error(found: Any) -> float:
        return abs(found.value - expected) / max(1.0, abs(expected))

    ours = Contender("fastincentive", lambda: problem.leader_pass(policies))
    return Trial([ours], error, 1e-10)


def _rewarded(problem: Any, policy: np.ndarray, reward: str) -> float:
    """Leader's value of ``stacked``, from the moments of independent numbers."""
    followers, gamma, n = problem.followers, problem.leader_discount, problem.n
    backward = policy_matrix(followers[0], policy).T.tocsr()
    worth = problem.payments.index[0, :, 0] >= 0  # one of the two lesser goals
    worth |= followers.rewards[0, :, 0] == followers.rewards[0, worth, 0][0]
    goals = np.flatnonzero(worth)
    # Robots with one start share a law.
    starts, counts = np.unique(followers.packed.initial, axis=0, return_counts=True)
    mass, total = starts.T.copy(), 0.0
    for t in range(1600):
        p = mass[goals]
        if reward == "additive":
            earned = float((p @ counts).sum())
        elif reward == "congestion":
            mean, variance = p @ counts, (p * (1.0 - p)) @ counts
            earned = float((mean - (variance + mean**2) / n).sum())
        else:
            lost = np.arange(1, 9)[:, None] / (4.0 * n) * p.sum(axis=0)
            earned = float(np.expm1(np.log1p(-lost) @ counts).sum())
        total += gamma**t * earned
        mass = backward @ mass
    return float(total)


def _counted(problem: Any, policy: np.ndarray) -> float:
    """Leader's value of ``stacked``, by adding up the law of the count follower by follower."""
    followers, gamma = problem.followers, problem.leader_discount
    backward = policy_matrix(followers[0], policy).T.tocsr()
    there = problem.leader.labels[0, :, 0] != problem.leader.labels[0, -1, 0]
    worth = cases.eighth(problem.n)
    mass, total = followers.packed.initial.T.copy(), 0.0
    for t in range(1600):
        chances = mass[there].sum(axis=0)
        law = np.ones(1)
        for p in chances:
            law = np.convolve(law, (1.0 - p, p))
        total += gamma**t * (law @ worth + 0.1 * chances.sum())
        mass = backward @ mass
    return float(total)


def _large(what: str, size: int) -> Trial:
    followers = Followers([cases.robot_grid(size, _GAMMA)])
    return _followers_trial(what, followers, cases.policy(size, _KIND))


def _long(gamma: float) -> Trial:
    """Random policies: they are absorbed so slowly that the discount sets the horizon."""
    case = cases.leader_case(2, 15, gamma, "random")
    expected = twin(case)
    problem = case.problem

    ours = Contender("fastincentive", lambda: problem.leader_pass(case.policies))
    return Trial(
        [ours],
        partial(leader_error, expected),
        1e-10,
        facts=lambda found: {"horizon": found.horizon},
    )
