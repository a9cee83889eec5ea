"""The cheapest payments at which given policies are best responses, by a margin if wanted.

A policy is optimal with a margin m if it is optimal after every competing action at a visited
state has been paid m more. So one routine, for margin 0, serves all margins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastincentive.errors import InfeasiblePolicyError, InputError, invalid
from fastincentive.followers import Followers
from fastincentive.kernels.jit import TIE
from fastincentive.mdp import FloatArray, TabularMDP, TransitionModel
from fastincentive.payments import BoundPayments
from fastincentive.problem import IncentiveProblem
from fastincentive.ties import unit_of_reward

__all__ = ["CheapestPayments", "cheapest_payments", "supporting_payments"]

BoolArray = NDArray[np.bool_]

#: A non-linear cost is minimised to this relative gap.
COST_GAP = 1e-9
#: Rows that the error for an infeasible policy lists.
LISTED = 5


@dataclass(frozen=True)
class CheapestPayments:
    """The cheapest payments for given policies.

    Attributes
    ----------
    payments : array (k,)
    cost : float
        C(x), without the cost weight.
    margins : array (n,)
        By how much each follower's policy beats the best competing action, at the visited state
        where that is least; inf where nothing competes.
    price_of_margin : float
        ``cost`` less the least cost at margin 0.
    """

    payments: FloatArray
    cost: float
    margins: FloatArray
    price_of_margin: float


def cheapest_payments(
    problem: IncentiveProblem, policies: ArrayLike, margin: float = 0.0
) -> CheapestPayments:
    """Find the least-cost payments at which the policies are best responses from the start.

    Parameters
    ----------
    problem : IncentiveProblem
    policies : array (n, S, A)
        What each follower should do in the states that it visits with positive probability;
        elsewhere it may do what it likes best.
    margin : float
        By how much, in units of reward, every other action must be worse at each visited state.
        With a margin > 0 the answer at these states is unique, so that the leader gets what it
        paid for however ties are broken. Actions that are the same to the follower and to the
        leader as one that the policy takes (law of the successor, reward, payment, label) do
        not compete. Actions between which a policy draws lots tie among themselves.

    Returns
    -------
    CheapestPayments
        Verified by exact best responses: the gaps V_i* - V_i are within the tolerance for ties
        and the margins within 1e-9 units of reward.

    Raises
    ------
    InfeasiblePolicyError
        If no allowed payments do; it names followers and states, and what they fall short.
    InputError
        If an argument is not as described.
    ImproperPolicyError
        At discount 1, if a policy is never absorbed.

    Notes
    -----
    Minimise C(x) over payments x and values V subject to V(s) >= Q(s, a; x, V) everywhere and
    V(s) = sum_a pi(a|s) Q(s, a; x, V) at visited states: the linear programme of inverse
    reinforcement learning [1]_ on the payments that exist, one for each follower unless shared
    payments tie them together. One payment per follower is found by Newton's
    method on the gap, which is piecewise linear. A non-linear cost must be convex; it is
    minimised by simplicial decomposition [2]_ to a relative gap of 1e-9.

    References
    ----------
    .. [1] A. Y. Ng and S. J. Russell, "Algorithms for inverse reinforcement learning", ICML 2000.
    .. [2] B. von Hohenbalken, "Simplicial decomposition in nonlinear programming algorithms",
       Mathematical Programming 13, 1977.

    Examples
    --------
    >>> import fastincentive as fi
    >>> problem = fi.models.example1()
    >>> target = fi.leader_optimal_policies(problem)
    >>> fi.cheapest_payments(problem, target).payments.round(9)
    array([1., 2.])
    """
    target = problem.followers.check_policies(policies)
    if not (margin >= 0 and np.isfinite(margin)):
        raise invalid("margin", "a finite number >= 0", margin)
    visited = problem.followers.evaluate(problem.followers.rewards, target).visits > 0
    competing = _competing(problem, target, visited)
    if margin > 0:
        _check_absorbed(problem, target, visited)
    followers = _started_everywhere(problem.followers, visited)
    task = _Task(problem, followers, target, visited, margin * competing.astype(float))
    payments = _cheapest(task)
    cost = task.cost(payments)
    without = replace(task, bonus=np.zeros(target.shape))
    least = task.cost(_cheapest(without)) if margin > 0 else cost
    best = problem.followers.best_responses(problem.rewards(payments))
    lead = np.where(competing, best.values[:, :, None] - best.q_values, np.inf)
    return CheapestPayments(
        payments=payments,
        cost=cost,
        margins=lead.min(axis=(1, 2)),
        price_of_margin=max(cost - least, 0.0) if least < np.inf else 0.0,
    )


def supporting_payments(
    problem: IncentiveProblem, policies: FloatArray, fallback: FloatArray
) -> tuple[FloatArray, BoolArray]:
    """Cheapest payments (k,) at which each follower's policy is an exact best response.

    Returns them with (n,) bool: the followers for whom there are such payments; the others keep
    ``fallback``, at which a non-linear cost is linearised. Where there is a budget that these
    payments break, all keep it.
    """
    visited = problem.followers.evaluate(problem.followers.rewards, policies).visits > 0
    task = _Task(problem, problem.followers, policies, visited, np.zeros(policies.shape))
    x, supported = _linearised(task, task.prices(fallback), fallback)
    if not task.within_budget(x):
        return fallback, np.zeros(problem.n, bool)
    return x, supported


# -- the task ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    """Make policies optimal from the starts of ``followers``, with ``bonus`` for competitors."""

    problem: IncentiveProblem
    followers: Followers
    policies: FloatArray
    visited: BoolArray  # (n, S)
    bonus: FloatArray  # (n, S, A)

    @property
    def payments(self) -> BoundPayments:
        return self.problem.payments

    def cost(self, x: FloatArray) -> float:
        """C(x), or C(x, pi) where it depends on the policies."""
        return self.problem.cost_pass(x, self.policies, gradient=False).value

    def prices(self, x: FloatArray) -> FloatArray:
        """Return dC/dx (k,)."""
        return self.problem.cost_pass(x, self.policies).payments

    def within_budget(self, x: FloatArray) -> bool:
        """Whether C is at most the budget, up to rounding."""
        budget = self.problem.budget
        return budget is None or self.cost(x) <= budget * (1.0 + 1e-12)

    def unit(self, x: FloatArray) -> FloatArray:
        """Return each follower's unit of reward (n,), the margin included."""
        return np.maximum(unit_of_reward(self.problem, x), self.bonus.max(axis=(1, 2)))

    def gap_and_slope(self, x: FloatArray, who: BoolArray) -> tuple[FloatArray, FloatArray]:
        """Gap V* - V (n,) at payments x, and how fast each payment closes it (n, K).

        Only those in ``who`` get the bonus: for the others it might be earned for ever.
        """
        rewards = self.problem.rewards(x) + np.where(who[:, None, None], self.bonus, 0.0)
        held = self.followers.evaluate(rewards, self.policies)
        best = self.followers.best_responses(rewards)
        answer = np.eye(self.followers.n_actions)[best.actions]
        other = self.followers.evaluate(rewards, answer)
        gap = self.followers.start_values(other.values - held.values)
        occupancy = held.visits[:, :, None] * self.policies - other.visits[:, :, None] * answer
        return gap, self.payments.compress(occupancy)


def _started_everywhere(followers: Followers, visited: BoolArray) -> Followers:
    """Start in all visited states alike: optimal from there is optimal in each, however rare."""
    mdps: list[TabularMDP] = []
    for mdp, states in zip(followers, visited, strict=True):
        mdps.append(mdp.replace(initial=states / states.sum()) if states.any() else mdp)
    return Followers(mdps)


def _competing(problem: IncentiveProblem, policies: FloatArray, visited: BoolArray) -> BoolArray:
    """(n, S, A) bool: actions at visited states that differ from all that the policy takes."""
    followers = problem.followers
    labels = np.broadcast_to(problem.leader.labels, followers.shape)
    same_law = {id(mdp.transition): mdp.transition for mdp in followers}
    laws = {key: _same_law(model) for key, model in same_law.items()}
    competing = np.empty(followers.shape, bool)
    for i, mdp in enumerate(followers):
        same = laws[id(mdp.transition)].copy()
        for known in (mdp.reward, problem.payments.index[i], labels[i]):
            same &= known[:, :, None] == known[:, None, :]
        taken = (same & (policies[i] > 0)[:, None, :]).any(axis=2)
        competing[i] = visited[i][:, None] & mdp.available & ~taken
    return competing


def _check_absorbed(problem: IncentiveProblem, policies: FloatArray, visited: BoolArray) -> None:
    """Raise if a follower at discount 1 has a choice that matters once it is absorbed.

    There nothing can be paid, so that it is indifferent whatever the payments.
    """
    met = np.zeros(visited.shape, bool)
    for i, mdp in enumerate(problem.followers):
        if mdp.discount < 1.0:
            continue
        model = mdp.transition
        taken = np.repeat((policies[i] > 0).reshape(-1), np.diff(model.row_start))
        origin = np.repeat(np.arange(policies[i].size), np.diff(model.row_start)) // mdp.n_actions
        here = visited[i] | (mdp.initial > 0)
        count = -1
        while count != here.sum():
            count = here.sum()
            here[model.successor[taken & here[origin]]] = True
        met[i] = here & model.absorbing
    open_choice = _competing(problem, policies, met)
    if open_choice.any():
        i, s, a = (int(k) for k in np.argwhere(open_choice)[0])
        raise InfeasiblePolicyError(
            f"policies: no payments make these best responses by a margin; follower {i}, whose "
            f"discount is 1, is absorbed in state {s}, where nothing can be paid and action {a} is "
            "as good to it. Use a discount below 1, or a leader that does not tell these apart."
        )


def _same_law(model: TransitionModel) -> BoolArray:
    """(S, A, A) bool: whether two actions in a state lead on alike."""
    states, actions = model.available.shape
    same = np.zeros((states, actions, actions), bool)
    moves = _transition_matrix(model)
    for a in range(actions):
        same[:, a, a] = True
        for b in range(a):
            off = abs(moves[a::actions] - moves[b::actions]).max(axis=1).toarray().reshape(-1)
            same[:, a, b] = same[:, b, a] = off <= 1e-14
    return same


def _transition_matrix(model: TransitionModel) -> Any:
    """P as a sparse matrix (S A, S)."""
    from scipy.sparse import csr_array

    return csr_array(
        (model.probability, model.successor, model.row_start),
        shape=(model.row_start.size - 1, model.available.shape[0]),
    )


# -- the solution -----------------------------------------------------------------------------


def _cheapest(task: _Task) -> FloatArray:
    """Least-cost payments for all followers, or the error that says why there are none."""
    x, supported = _support(task)
    if not supported.all():
        raise InfeasiblePolicyError(_explain(task, supported))
    if not task.within_budget(x):
        raise InfeasiblePolicyError(
            "policies: the cheapest payments that make these best responses cost "
            f"{task.cost(x):.12g}, and the budget is {task.problem.budget:.12g}. Raise the budget."
        )
    return x


def _support(task: _Task) -> tuple[FloatArray, BoolArray]:
    """Least-cost payments that make the policies optimal, and for whom there are any."""
    prices = task.prices(task.payments.lower)
    x, supported = _linearised(task, prices, task.payments.lower)
    slope = task.prices(x)
    # Of separate payments each is at its least: no cost that rises with all is lower elsewhere.
    least = _one_each(task.payments) and (slope >= 0).all()
    if least or not supported.all() or np.allclose(slope, prices, 1e-14, 0.0):
        return x, supported
    return _verified(task, _minimise(task, x), supported)


def _one_each(bound: BoundPayments) -> bool:
    return bound.reach.shape[1] == 1 and not bound.shared


def _linearised(
    task: _Task, prices: FloatArray, fallback: FloatArray
) -> tuple[FloatArray, BoolArray]:
    """As ``_support``, for the cost prices . x; the unsupported keep ``fallback``."""
    if _one_each(task.payments):
        try:
            return _by_newton(task, fallback)
        except InputError:
            # At discount 1 some margin would be earned for ever: the programmes find out whose.
            if not task.bonus.any():
                raise
    return _by_linear_programme(task, prices, fallback)


def _by_newton(task: _Task, fallback: FloatArray) -> tuple[FloatArray, BoolArray]:
    """One payment per follower: raise it from the lower bound to the first root of the gap."""
    bound = task.payments
    paid = bound.reach[:, 0] >= 0
    variable = bound.reach[paid, 0]
    unit = task.unit(fallback)
    x = bound.lower.copy()
    feasible = np.ones(task.followers.n, bool)
    for _ in range(500):
        gap, slope = task.gap_and_slope(x, feasible)
        open_gap = feasible & (gap > 1e-13 * unit)
        # Where more payment does not close the gap, no payment supports the policy.
        stuck = open_gap & (~paid | (slope[:, 0] <= 1e-12))
        feasible &= ~(stuck & (gap > TIE * unit))
        open_gap &= ~stuck
        if not open_gap.any():
            break
        raised = np.where(open_gap, gap / np.where(open_gap, slope[:, 0], 1.0), 0.0)[paid]
        before = x[variable]
        above = before + raised
        x[variable] = np.minimum(above, bound.upper[variable])
        feasible[paid] &= above <= bound.upper[variable] * (1.0 + 1e-14)
        if (x[variable] == before).all():
            feasible &= gap <= TIE * unit
            break
    else:
        feasible &= gap <= TIE * unit
    keep = np.zeros(bound.size, bool)
    keep[variable[feasible[paid]]] = True
    return np.where(keep, x, fallback), feasible


def _by_linear_programme(
    task: _Task, prices: FloatArray, fallback: FloatArray
) -> tuple[FloatArray, BoolArray]:
    bound = task.payments
    x = fallback.copy()
    feasible = np.zeros(task.followers.n, bool)
    for group in task.payments.groups:
        programme = _Programme(task, group)
        amounts = programme.solve(prices)
        if amounts is not None:
            x[programme.variables] = amounts
            feasible[group] = True
    x, feasible = _verified(task, x, feasible)
    out = fallback.copy()
    bought = bound.reaching(feasible)
    out[bought] = x[bought]
    return out, feasible


def _verified(task: _Task, x: FloatArray, feasible: BoolArray) -> tuple[FloatArray, BoolArray]:
    """Payments rid of the solver's error, and for whom of ``feasible`` they are exact."""
    x = _close_gaps(task, x, feasible)
    gap, _ = task.gap_and_slope(x, feasible)
    exact = feasible & (gap <= TIE * task.unit(x))
    for group in task.payments.groups:
        exact[group] &= exact[group].all()
    return x, exact


def _close_gaps(task: _Task, x: FloatArray, feasible: BoolArray) -> FloatArray:
    """Remove the programme's own error: the nearest payments on the lines that the gaps show.

    Each gap is a maximum of lines in x; the violated ones are collected, and the least change
    that satisfies them all is a least-distance programme.
    """
    bound = task.payments
    unit = task.unit(x)
    origin = x.copy()
    groups = task.payments.groups
    lines: list[list[tuple[FloatArray, float]]] = [[] for _ in groups]
    for _ in range(50):
        gap, slope = task.gap_and_slope(x, feasible)
        open_gap = feasible & (gap > 1e-13 * unit) & (np.abs(slope).max(axis=1) > 1e-12)
        if not open_gap.any():
            break
        x = x.copy()
        for group, known in zip(groups, lines, strict=True):
            variables = bound.reaching(group)
            fresh = [i for i in group if open_gap[i]]
            for i in fresh:
                row = np.zeros(bound.size)
                held = bound.reach[i] >= 0
                row[bound.reach[i, held]] = slope[i, held]
                known.append((row[variables], gap[i] + row @ (x - origin)))
            if fresh:
                x[variables] = _nearest_on_lines(bound, variables, origin, known)
    return x


def _nearest_on_lines(
    bound: BoundPayments,
    variables: NDArray[np.int64],
    origin: FloatArray,
    lines: Sequence[tuple[FloatArray, float]],
) -> FloatArray:
    """Nearest allowed payments to the origin's with row @ change >= value for each line.

    Solved as non-negative least squares (Lawson and Hanson, Solving Least Squares Problems,
    chapter 23).
    """
    from scipy.optimize import nnls

    here, lower, upper = origin[variables], bound.lower[variables], bound.upper[variables]
    finite = np.isfinite(upper)
    eye = np.eye(variables.size)
    values = np.array([value for _, value in lines])
    rows = np.vstack([[row for row, _ in lines], eye, -eye[finite]])
    least = np.concatenate([values, lower - here, (here - upper)[finite]])
    scale = np.abs(values).max()
    dual = np.vstack([rows.T, least[None, :] / scale])
    goal = np.zeros(variables.size + 1)
    goal[-1] = 1.0
    rest = dual @ nnls(dual, goal)[0] - goal
    change = -scale * rest[:-1] / rest[-1] if rest[-1] < 0.0 else 0.0
    return np.clip(here + change, lower, upper)


# -- the linear programme ---------------------------------------------------------------------


class _Programme:
    """The linear programme of a group of followers, over its payments and values.

    V(s) >= Q(s, a) for every action, and V(s) = sum_a pi(a|s) Q(s, a) at visited states, which
    makes V there the policy's own value and leaves no other action above it. Rewards are divided
    by ``scale``, because the solver's tolerances are absolute.
    """

    def __init__(self, task: _Task, group: NDArray[np.int64]) -> None:
        from scipy.sparse import block_diag, csr_array, hstack, vstack

        self.task = task
        self.group = group
        bound, followers = task.payments, task.followers
        self.scale = float(task.unit(bound.lower)[group].max())
        self.variables = bound.reaching(group)
        column = np.full(bound.size, -1)
        column[self.variables] = np.arange(self.variables.size)
        states, actions = followers.n_states, followers.n_actions
        pairs = states * actions
        paid, moves, average, fixed = [], [], [], []
        for i in group:
            mdp = followers[i]
            index = bound.index[i].reshape(-1)
            at = np.flatnonzero(index >= 0)
            shape = (pairs, self.variables.size)
            paid.append(csr_array((np.ones(at.size), (at, column[index[at]])), shape=shape))
            every = np.arange(pairs)
            own = csr_array((np.ones(pairs), (every, every // actions)), shape=(pairs, states))
            moves.append(mdp.discount * _transition_matrix(mdp.transition) - own)
            weights = task.policies[i].reshape(-1)
            average.append(csr_array((weights, (every // actions, every)), shape=(states, pairs)))
            fixed.append(mdp.transition.absorbing & (mdp.discount == 1.0))
        # Row (s, a) is x + gamma P V - V, at most -(R + bonus).
        rows = hstack([vstack(paid), block_diag(moves)], format="csr")
        reward = (followers.rewards[group] / self.scale).reshape(-1)
        bonus = (task.bonus[group] / self.scale).reshape(-1)
        visited = task.visited[group]
        # A certain action's row says the same as the equality.
        certain = visited[:, :, None] & (task.policies[group] == 1.0)
        self.pairs = np.flatnonzero(followers.available[group] & ~certain)
        self.at_visited = np.repeat(visited.reshape(-1), actions)[self.pairs]
        self.rows = rows[self.pairs]
        self.limit = -(reward + bonus)[self.pairs]
        mean = block_diag(average, format="csr")[np.flatnonzero(visited)]
        self.equal = mean @ rows
        self.target = -(mean @ reward)
        pinned = np.concatenate(fixed)
        self.bounds = np.column_stack(
            [
                np.concatenate([bound.lower[self.variables], np.where(pinned, 0.0, -np.inf)]),
                np.concatenate([bound.upper[self.variables], np.where(pinned, 0.0, np.inf)]),
            ]
        )
        self.bounds[: self.variables.size] /= self.scale

    def solve(self, prices: FloatArray) -> FloatArray | None:
        """Payments of the group that cost least at ``prices`` (k,), or None if there are none."""
        cost = np.zeros(self.rows.shape[1])
        cost[: self.variables.size] = prices[self.variables]
        result = self._linprog(cost, self.rows, self.equal, self.bounds)
        if result.status == 3:
            raise invalid(
                "cost",
                "a cost with a least value on the allowed payments",
                "one that falls for ever as payments rise",
                None,
                "Give the payments an upper bound.",
            )
        return self._payments(result.x) if result.success else None

    def shortfalls(self) -> tuple[FloatArray, list[tuple[float, int, int, int]]]:
        """Payments nearest to supporting the policies, and (shortfall, i, s, a) what they lack.

        Nearest: the least total by which competing actions exceed the policy's value.
        """
        from scipy.sparse import csr_array, hstack

        lacking = np.flatnonzero(self.at_visited)
        slack = csr_array(
            (-np.ones(lacking.size), (lacking, np.arange(lacking.size))),
            shape=(self.rows.shape[0], lacking.size),
        )
        nothing = csr_array((self.equal.shape[0], lacking.size))
        width = self.rows.shape[1]
        result = self._linprog(
            np.concatenate([np.zeros(width), np.ones(lacking.size)]),
            hstack([self.rows, slack], format="csr"),
            hstack([self.equal, nothing], format="csr"),
            np.vstack([self.bounds, np.tile([0.0, np.inf], (lacking.size, 1))]),
        )
        if not result.success:
            return self.task.payments.lower[self.variables], []
        states, actions = self.task.policies.shape[1:]
        found = []
        for value, pair in zip(result.x[width:], self.pairs[lacking], strict=True):
            if value > 1e-8:
                g, s, a = np.unravel_index(pair, (len(self.group), states, actions))
                found.append((float(value * self.scale), int(self.group[g]), int(s), int(a)))
        return self._payments(result.x), sorted(found, reverse=True)

    def _payments(self, solution: FloatArray) -> FloatArray:
        bound, variables = self.task.payments, self.variables
        amounts = self.scale * solution[: variables.size]
        return np.clip(amounts, bound.lower[variables], bound.upper[variables])

    def _linprog(self, cost: FloatArray, rows: Any, equal: Any, bounds: FloatArray) -> Any:
        from scipy.optimize import linprog

        return linprog(  # type: ignore[call-overload]
            cost,
            A_ub=rows,
            b_ub=self.limit,
            A_eq=equal,
            b_eq=self.target,
            bounds=bounds,
            method="highs",
            options={"primal_feasibility_tolerance": 1e-9, "dual_feasibility_tolerance": 1e-9},
        )


# -- costs that are not linear ----------------------------------------------------------------


def _minimise(task: _Task, x: FloatArray) -> FloatArray:
    """Minimise a convex cost: mix corners of the feasible set, each the cheapest at some prices.

    At the end no corner is cheaper than the mixture by more than ``COST_GAP``, at its own prices.
    """
    programmes = [_Programme(task, group) for group in task.payments.groups]
    corners = x[None, :]
    weights = np.ones(1)
    for _ in range(20 + 4 * x.size):
        prices = task.prices(x)
        corner = x.copy()
        for programme in programmes:
            amounts = programme.solve(prices)
            if amounts is not None:
                corner[programme.variables] = amounts
        if prices @ (x - corner) <= COST_GAP * abs(task.cost(x)):
            break
        corners = np.vstack([corners[weights > 0], corner])
        weights = _best_mixture(task, corners, np.append(weights[weights > 0], 0.0))
        x = weights @ corners
    return x


def _best_mixture(task: _Task, corners: FloatArray, weights: FloatArray) -> FloatArray:
    """Weights of the corners at which the cost of their mixture is least."""
    from scipy.optimize import minimize

    size = max(abs(task.cost(weights @ corners)), 1e-300)
    result = minimize(  # type: ignore[call-overload]
        lambda w: task.cost(w @ corners) / size,
        weights,
        jac=lambda w: corners @ task.prices(w @ corners) / size,
        bounds=[(0.0, 1.0)] * weights.size,
        constraints={
            "type": "eq",
            "fun": lambda w: w.sum() - 1.0,
            "jac": lambda w: np.ones(w.size),
        },
        method="SLSQP",
        options={"ftol": 1e-16, "maxiter": 200},
    )
    mixed = np.where(result.x > 1e-12, result.x, 0.0)
    return mixed / mixed.sum()


# -- the explanation --------------------------------------------------------------------------


def _explain(task: _Task, supported: BoolArray) -> str:
    """Say which followers and states cannot be bought, by how much, and what would help."""
    bound = task.payments
    near = bound.lower.copy()
    lacking: list[tuple[float, int, int, int]] = []
    for group in task.payments.groups:
        if len(lacking) < LISTED and not supported[group].all():
            programme = _Programme(task, group)
            near[programme.variables], rows = programme.shortfalls()
            lacking += rows
    if not lacking:
        names = ", ".join(map(str, np.flatnonzero(~supported)[:LISTED]))
        return f"policies: none of the allowed payments were found to support follower {names}"
    text = [_describe(task, *row) for row in lacking[:LISTED]]
    if len(lacking) > LISTED:
        text.append(f"and {len(lacking) - LISTED} more")
    _, i, s, _ = lacking[0]
    remedies = [f"allow a payment for follower {i} in state {s} or on the way that it should take"]
    if (near >= bound.upper).any():
        remedies.append("raise upper")
    if task.bonus.any():
        remedies.append("ask for a smaller margin")
    return (
        "policies: no allowed payments make these best responses; at the payments that come "
        f"nearest {'; '.join(text)}. To mend it, {', or '.join(remedies)}."
    )


def _describe(task: _Task, short: float, i: int, s: int, a: int) -> str:
    """Return one row of the explanation: action ``a`` is too good by ``short``."""
    wanted = np.where(np.arange(task.policies.shape[2]) == a, -1.0, task.policies[i, s])
    lead = task.bonus[i, s, a]
    text = f"follower {i}: state {s} action {int(np.argmax(wanted))} stays "
    if lead > 0:
        return text + f"{short:.6g} short of a lead of {lead:g} over action {a}"
    return text + f"worse than action {a} by {short:.6g}"
