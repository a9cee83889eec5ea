"""What the leader really gets: payments to post, exact best responses, ties broken both ways."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastincentive.errors import ImproperPolicyError
from fastincentive.kernels import bellman
from fastincentive.mdp import FloatArray
from fastincentive.methods.pieces import compress
from fastincentive.problem import Evaluation, IncentiveProblem

__all__ = ["Recovered", "break_ties", "recover", "supporting_payments"]

#: Actions within this many units of reward of the best count as tied.
TIE = 2e-11
#: Tied choices are enumerated up to this many combinations, and searched locally beyond.
ENUMERATED = 256


@dataclass(frozen=True)
class Recovered:
    """Payments as posted and exact best responses, ties broken for and against the leader."""

    payments: FloatArray
    policies: FloatArray
    evaluation: Evaluation
    pessimistic_policies: FloatArray
    pessimistic: Evaluation


def recover(
    problem: IncentiveProblem, payments: FloatArray, policies: FloatArray, polish: bool = True
) -> Recovered:
    """Recover a feasible point near (payments, policies).

    Followers answer the payments exactly. Near a kink an iterate that is short of it by rounding
    would lose the response it was built for, so with ``polish`` the cheapest payments that make
    the (rounded) policies exact best responses are tried as well; the best objective is kept.
    """
    followers = problem.followers
    unit = _unit(problem, payments)
    candidates: list[tuple[FloatArray, FloatArray | None]] = [(payments, None)]
    if polish:
        best = followers.best_responses(problem.rewards(payments))
        seen: list[FloatArray] = []
        for slack in (1e-9, 1e-6, 1e-4, 1e-2):
            near = np.empty(followers.shape)
            bellman.near_greedy_policies(best.q_values, best.values, slack * unit, policies, near)
            rounded = np.eye(followers.n_actions)[np.argmax(near, axis=2)]
            for target in (rounded, near):
                if any(np.array_equal(target, other) for other in seen):
                    continue
                seen.append(target)
                if not _proper(problem, target):
                    continue
                posted, supported = supporting_payments(problem, target, payments)
                if supported.any():
                    answer = np.where(supported[:, None, None], target, near)
                    candidates.append((posted, answer))
    best_value = -np.inf
    chosen: tuple[FloatArray, FloatArray] | None = None
    for posted, start in candidates:
        answer = break_ties(problem, posted, 1.0, start)
        value = problem.leader_pass(answer, gradient=False).value
        value -= problem.cost_weight * problem.cost.value(posted)
        if chosen is None or value > best_value + 1e-12 * max(1.0, abs(best_value)):
            best_value, chosen = value, (posted, answer)
    assert chosen is not None  # the first candidate always exists
    posted, answer = chosen
    worst = break_ties(problem, posted, -1.0, answer)
    return Recovered(
        payments=posted,
        policies=answer,
        evaluation=problem.evaluate(posted, answer),
        pessimistic_policies=worst,
        pessimistic=problem.evaluate(posted, worst),
    )


# -- payments that support given policies --------------------------------------------------------


def supporting_payments(
    problem: IncentiveProblem, policies: FloatArray, fallback: FloatArray
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Cheapest payments (k,) at which each follower's policy is an exact best response.

    Returns them with (n,) bool: the followers for whom there are such payments; the others keep
    ``fallback``. Follower i's policy is worth c + D . x at payments x, its best response the
    largest such line; one payment per follower is solved by Newton's method on the gap (exact,
    it is piecewise linear), several by a linear programme over x and the values.
    """
    bound = problem.payments
    if bound.shared or bound.budget is not None:
        return _by_linear_programme(problem, policies, fallback, together=True)
    if bound.reach.shape[1] > 1:
        return _by_linear_programme(problem, policies, fallback, together=False)
    return _one_each(problem, policies, fallback)


def _gap_and_slope(
    problem: IncentiveProblem, policies: FloatArray, x: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Gap V* - V (n,) at payments x, and how fast each payment closes it (n, K)."""
    followers = problem.followers
    rewards = problem.rewards(x)
    held = followers.evaluate(rewards, policies)
    best = followers.best_responses(rewards)
    answer = np.eye(followers.n_actions)[best.actions]
    other = followers.evaluate(rewards, answer)
    gap = followers.start_values(other.values) - followers.start_values(held.values)
    occupancy = held.visits[:, :, None] * policies - other.visits[:, :, None] * answer
    return gap, compress(problem.payments, occupancy)


def _one_each(
    problem: IncentiveProblem, policies: FloatArray, fallback: FloatArray
) -> tuple[FloatArray, NDArray[np.bool_]]:
    bound = problem.payments
    paid = bound.reach[:, 0] >= 0
    variable = bound.reach[paid, 0]
    unit = _unit(problem, fallback)
    x = bound.lower.copy()
    feasible = np.ones(problem.n, bool)
    for _ in range(500):
        gap, slope = _gap_and_slope(problem, policies, x)
        open_gap = feasible & (gap > 1e-13 * unit)
        # Where more payment does not close the gap, no payment supports the policy.
        feasible &= ~(open_gap & (~paid | (slope[:, 0] <= 1e-12)))
        open_gap &= feasible
        if not open_gap.any():
            break
        raised = np.where(open_gap, gap / np.where(open_gap, slope[:, 0], 1.0), 0.0)[paid]
        before = x[variable]
        x[variable] = before + raised
        over = x[variable] > bound.upper[variable]
        x[variable] = np.minimum(x[variable], bound.upper[variable])
        over_who = np.zeros(problem.n, bool)
        over_who[paid] = over
        feasible &= ~over_who
        if (x[variable] == before).all():
            feasible &= gap <= TIE * unit
            break
    else:
        feasible &= gap <= TIE * unit
    keep = np.zeros(bound.size, bool)
    keep[variable[feasible[paid]]] = True
    return np.where(keep, x, fallback), feasible


def _by_linear_programme(
    problem: IncentiveProblem, policies: FloatArray, fallback: FloatArray, together: bool
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Minimise price . x over (x, V): V >= R + x + gamma P V, and mu . V <= value of the policy."""
    bound = problem.payments
    price = problem.cost.gradient(fallback)
    x = fallback.copy()
    feasible = np.zeros(problem.n, bool)
    groups = [list(range(problem.n))] if together else [[i] for i in range(problem.n)]
    for group in groups:
        solved = _solve_group(problem, policies, group, price)
        if solved is None:
            continue
        variables, amounts = solved
        trial = x.copy()
        trial[variables] = np.clip(amounts, bound.lower[variables], bound.upper[variables])
        x = trial
        feasible[group] = True
    # The programme is solved to 1e-8 or so; a few Newton steps on the gaps remove the rest.
    unit = _unit(problem, fallback)
    for _ in range(30):
        gap, slope = _gap_and_slope(problem, policies, x)
        open_gap = feasible & (gap > 1e-13 * unit)
        norm = (slope**2).sum(axis=1)
        open_gap &= norm > 1e-20
        if not open_gap.any():
            break
        push = np.zeros(bound.size)
        for i in np.flatnonzero(open_gap):
            held = bound.reach[i] >= 0
            push[bound.reach[i, held]] += gap[i] / norm[i] * slope[i, held]
        x = bound.project(x + push)
    gap, _ = _gap_and_slope(problem, policies, x)
    feasible &= gap <= TIE * unit
    if together and not feasible.all():
        return fallback, np.zeros(problem.n, bool)
    if not together:
        keep = bound.reaches[feasible].any(axis=0)
        x = np.where(keep, x, fallback)
    return x, feasible


def _solve_group(
    problem: IncentiveProblem, policies: FloatArray, group: list[int], price: FloatArray
) -> tuple[NDArray[np.int64], FloatArray] | None:
    from scipy.optimize import linprog
    from scipy.sparse import coo_array

    followers, bound = problem.followers, problem.payments
    states, actions = followers.n_states, followers.n_actions
    variables = np.flatnonzero(bound.reaches[group].any(axis=0))
    column_of = np.full(bound.size, -1)
    column_of[variables] = np.arange(variables.size)
    at_lower = bound.lower
    held = followers.evaluate(problem.rewards(at_lower), policies)
    worth = followers.start_values(held.values)
    # Exact equality would be infeasible to the solver's tolerance; the Newton steps make it good.
    loose = 1e-8 * _unit(problem, at_lower)
    slope = compress(bound, held.visits[:, :, None] * policies)
    rows: list[NDArray[np.int64]] = []
    columns: list[NDArray[np.int64]] = []
    data: list[FloatArray] = []
    limit: list[FloatArray] = []
    offset = 0
    fixed = np.zeros(len(group) * states, bool)
    for g, i in enumerate(group):
        mdp = followers[i]
        model = mdp.transition
        first = variables.size + g * states
        pair = np.repeat(np.arange(states * actions), np.diff(model.row_start))
        # R + x + gamma P V - V <= 0 for each pair.
        rows += [offset + pair, offset + np.arange(states * actions)]
        columns += [first + model.successor, first + np.arange(states * actions) // actions]
        data += [mdp.discount * model.probability, -np.ones(states * actions)]
        index = bound.index[i].reshape(-1)
        paid = np.flatnonzero(index >= 0)
        rows.append(offset + paid)
        columns.append(column_of[index[paid]])
        data.append(np.ones(paid.size))
        limit.append(np.where(mdp.available, -mdp.reward, np.inf).reshape(-1))
        offset += states * actions
        # mu . V - D . x <= c.
        start = np.flatnonzero(mdp.initial)
        reach = bound.reach[i][bound.reach[i] >= 0]
        rows.append(np.full(start.size + reach.size, offset))
        columns += [first + start, column_of[reach]]
        data += [mdp.initial[start], -slope[i, : reach.size]]
        limit.append(np.array([worth[i] - slope[i, : reach.size] @ at_lower[reach] + loose[i]]))
        offset += 1
        if mdp.discount == 1.0:
            fixed[g * states : (g + 1) * states] = model.absorbing
    width = variables.size + len(group) * states
    upper_limit = np.concatenate(limit)
    matrix = coo_array(
        (np.concatenate(data), (np.concatenate(rows), np.concatenate(columns))),
        shape=(offset, width),
    ).tocsr()
    matrix = matrix[np.isfinite(upper_limit)]
    upper_limit = upper_limit[np.isfinite(upper_limit)]
    if bound.budget is not None:
        from scipy.sparse import vstack

        total = np.zeros((1, width))
        total[0, : variables.size] = 1.0
        matrix = vstack([matrix, total]).tocsr()
        upper_limit = np.append(upper_limit, bound.budget)
    box = np.empty((width, 2))
    box[: variables.size, 0] = bound.lower[variables]
    box[: variables.size, 1] = bound.upper[variables]
    box[variables.size :, 0] = np.where(fixed, 0.0, -np.inf)
    box[variables.size :, 1] = np.where(fixed, 0.0, np.inf)
    cost = np.zeros(width)
    cost[: variables.size] = price[variables]
    result = linprog(
        cost,
        A_ub=matrix,
        b_ub=upper_limit,
        bounds=box,
        method="highs",
        options={"primal_feasibility_tolerance": 1e-9, "dual_feasibility_tolerance": 1e-9},
    )
    if not result.success:
        return None
    return variables, np.asarray(result.x[: variables.size], float)


# -- ties ----------------------------------------------------------------------------------------


def break_ties(
    problem: IncentiveProblem,
    payments: FloatArray,
    sign: float,
    start: FloatArray | None = None,
    budget: int = 2000,
) -> FloatArray:
    """Best responses (n, S, A) to the payments that are best (sign +1) or worst (-1) for the leader.

    Among the optimal actions of every visited state, all combinations are tried when there are few
    (exact over deterministic policies); else followers' choices are changed one state at a time,
    guided by the leader's gradient, until no change helps or ``budget`` evaluations are spent.
    ``start`` is kept if it is a best response and nothing deterministic does better.
    """
    followers = problem.followers
    rewards = problem.rewards(payments)
    best = followers.best_responses(rewards)
    unit = _unit(problem, payments)
    tied = best.q_values >= best.q_values.max(axis=2, keepdims=True) - TIE * unit[:, None, None]
    held = np.empty(followers.shape)
    first = np.eye(followers.n_actions)[best.actions] if start is None else start
    bellman.near_greedy_policies(
        best.q_values, best.q_values.max(axis=2), TIE * unit, np.where(tied, first, 0.0), held
    )
    best_start = followers.start_values(best.values)

    def worth(candidate: FloatArray) -> float:
        """Leader's value in the wanted sense, -inf if the candidate is no best response."""
        try:
            values = followers.start_values(followers.evaluate(rewards, candidate).values)
        except ImproperPolicyError:
            return -np.inf
        if (best_start - values > 20.0 * TIE * unit).any():
            return -np.inf
        return sign * problem.leader_pass(candidate, gradient=False).value

    choices = _choices(problem, rewards, tied)
    current = worth(held)
    if current == -np.inf:
        held = np.eye(followers.n_actions)[best.actions]
        current = worth(held)
    if not choices:
        return held
    combinations = np.prod([float(len(actions)) for _, _, actions in choices])
    if combinations <= ENUMERATED:
        origin = held
        for pick in itertools.product(*[actions for _, _, actions in choices]):
            trial = origin.copy()
            for (i, s, _), a in zip(choices, pick, strict=True):
                trial[i, s] = 0.0
                trial[i, s, a] = 1.0
            value = worth(trial)
            if value > current + 1e-13 * max(1.0, abs(current)):
                held, current = trial, value
        return held
    return _search_ties(problem, choices, held, current, worth, sign, budget)


def _choices(
    problem: IncentiveProblem, rewards: FloatArray, tied: NDArray[np.bool_]
) -> list[tuple[int, int, list[int]]]:
    """Return (follower, state, actions): visited states with several different optimal actions."""
    followers = problem.followers
    count = tied.sum(axis=2)
    if (count == 1).all():
        return []
    visits = followers.evaluate(rewards, tied / count[:, :, None]).visits
    labels = problem.leader.labels
    found = []
    for i, s in np.argwhere((count > 1) & (visits > 0)):
        model = followers[int(i)].transition
        seen: dict[tuple[bytes, bytes, int], int] = {}
        for a in np.flatnonzero(tied[i, s]):
            row = s * followers.n_actions + a
            span = slice(model.row_start[row], model.row_start[row + 1])
            order = np.argsort(model.successor[span], kind="stable")
            label = int(labels[i, s, a]) if labels.shape[2] > 1 else 0
            key = (
                model.successor[span][order].tobytes(),
                np.round(model.probability[span][order], 14).tobytes(),
                label,
            )
            seen.setdefault(key, int(a))
        if len(seen) > 1:
            found.append((int(i), int(s), list(seen.values())))
    return found


def _search_ties(
    problem: IncentiveProblem,
    choices: list[tuple[int, int, list[int]]],
    held: FloatArray,
    current: float,
    worth: object,
    sign: float,
    budget: int,
) -> FloatArray:
    """Local search over tied choices, in the order in which the leader's gradient ranks them."""
    assert callable(worth)
    spent = 0
    while spent < budget:
        slope = problem.leader_pass(held).gradient
        assert slope is not None  # for the type checker
        gains = []
        every = held.copy()
        for i, s, actions in choices:
            here = float(held[i, s] @ slope[i, s])
            top = max(actions, key=lambda a: sign * slope[i, s, a])
            every[i, s] = 0.0
            every[i, s, top] = 1.0
            gains += [(sign * slope[i, s, a] - sign * here, i, s, a) for a in actions]
        spent += 1
        value = worth(every)
        if value > current + 1e-13 * max(1.0, abs(current)):
            held, current = every, value
            continue
        improved = False
        for _, i, s, a in sorted(gains, reverse=True):
            if held[i, s, a] == 1.0 or spent >= budget:
                continue
            trial = held.copy()
            trial[i, s] = 0.0
            trial[i, s, a] = 1.0
            spent += 1
            value = worth(trial)
            if value > current + 1e-13 * max(1.0, abs(current)):
                held, current, improved = trial, value, True
                break
        if not improved:
            break
    return held


def _unit(problem: IncentiveProblem, payments: FloatArray) -> FloatArray:
    """Each follower's unit of reward (n,): the size of its values and rewards, at least 1e-9."""
    best = problem.followers.best_responses(problem.rewards(payments))
    finite = np.where(np.isfinite(best.q_values), np.abs(best.q_values), 0.0)
    return np.maximum(finite.max(axis=(1, 2)), 1e-9)


def _proper(problem: IncentiveProblem, policies: FloatArray) -> bool:
    try:
        problem.followers.evaluate(problem.followers.rewards, policies)
    except ImproperPolicyError:
        return False
    return True
