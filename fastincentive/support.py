"""Payments that support given policies: the cheapest at which they are best responses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastincentive.mdp import FloatArray
from fastincentive.methods.pieces import compress
from fastincentive.problem import IncentiveProblem
from fastincentive.ties import TIE, unit_of_reward

__all__ = ["supporting_payments"]


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
    unit = unit_of_reward(problem, fallback)
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
    x = bound.project(_close_gaps(problem, policies, x, feasible, groups))
    gap, _ = _gap_and_slope(problem, policies, x)
    feasible &= gap <= TIE * unit_of_reward(problem, fallback)
    if together and not feasible.all():
        return fallback, np.zeros(problem.n, bool)
    if not together:
        keep = bound.reaches[feasible].any(axis=0)
        x = np.where(keep, x, fallback)
    return x, feasible


def _close_gaps(
    problem: IncentiveProblem,
    policies: FloatArray,
    x: FloatArray,
    feasible: NDArray[np.bool_],
    groups: list[list[int]],
) -> FloatArray:
    """Remove the programme's own error: the nearest payments on the lines that the gaps show.

    Each gap is a maximum of lines in x; the violated ones are collected, and the least change
    that satisfies them all is a least-distance programme (Lawson and Hanson, chapter 23).
    """
    from scipy.optimize import nnls

    bound = problem.payments
    unit = unit_of_reward(problem, x)
    origin = x.copy()
    lines: list[list[tuple[FloatArray, float]]] = [[] for _ in groups]
    for _ in range(50):
        gap, slope = _gap_and_slope(problem, policies, x)
        open_gap = feasible & (gap > 1e-13 * unit) & (np.abs(slope).max(axis=1) > 1e-12)
        if not open_gap.any():
            break
        x = x.copy()
        for group, known in zip(groups, lines, strict=True):
            variables = np.flatnonzero(bound.reaches[group].any(axis=0))
            fresh = [i for i in group if open_gap[i]]
            for i in fresh:
                row = np.zeros(bound.size)
                held = bound.reach[i] >= 0
                row[bound.reach[i, held]] = slope[i, held]
                known.append((row[variables], gap[i] + row @ (x - origin)))
            if not fresh:
                continue
            here = origin[variables]
            finite = np.isfinite(bound.upper[variables])
            eye = np.eye(variables.size)
            rows = np.vstack([[row for row, _ in known], eye, -eye[finite]])
            least = np.concatenate(
                [
                    [value for _, value in known],
                    bound.lower[variables] - here,
                    (here - bound.upper[variables])[finite],
                ]
            )
            if bound.budget is not None:
                rows = np.vstack([rows, -np.ones(variables.size)])
                least = np.append(least, here.sum() - bound.budget)
            scale = np.abs([value for _, value in known]).max()
            dual = np.vstack([rows.T, least[None, :] / scale])
            goal = np.zeros(variables.size + 1)
            goal[-1] = 1.0
            rest = dual @ nnls(dual, goal)[0] - goal
            if rest[-1] < 0.0:
                change = -scale * rest[:-1] / rest[-1]
                x[variables] = np.clip(
                    here + change, bound.lower[variables], bound.upper[variables]
                )
    return x


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
    loose = 1e-8 * unit_of_reward(problem, at_lower)
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
        columns += [
            first + model.successor.astype(np.int64),
            first + np.arange(states * actions) // actions,
        ]
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
    if bound.budget is not None:
        rows.append(np.full(variables.size, offset))
        columns.append(np.arange(variables.size))
        data.append(np.ones(variables.size))
        limit.append(np.array([bound.budget]))
        offset += 1
    width = variables.size + len(group) * states
    upper_limit = np.concatenate(limit)
    matrix = coo_array(
        (np.concatenate(data), (np.concatenate(rows), np.concatenate(columns))),
        shape=(offset, width),
    ).tocsr()
    matrix = matrix[np.isfinite(upper_limit)]
    upper_limit = upper_limit[np.isfinite(upper_limit)]
    box = np.empty((width, 2))
    box[: variables.size, 0] = bound.lower[variables]
    box[: variables.size, 1] = bound.upper[variables]
    box[variables.size :, 0] = np.where(fixed, 0.0, -np.inf)
    box[variables.size :, 1] = np.where(fixed, 0.0, np.inf)
    cost = np.zeros(width)
    cost[: variables.size] = price[variables]
    result = linprog(  # type: ignore[call-overload]
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
