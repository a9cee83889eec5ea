"""One follower and any number of payments, to proven optimality: a mixed-integer programme.

Columns: payments x, the follower's values V, its choices y (binary), and visits d that the
leader's discount weighs. V >= Q everywhere and V <= Q where y = 1 make y a best response; d lives
where y = 1. A follower with discount 1 has visits e of its own, which keep it from going round
for ever.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive.cheapest import cheapest_payments
from fastincentive.costs import LinearCost
from fastincentive.errors import InfeasiblePolicyError, invalid
from fastincentive.kernels import bellman
from fastincentive.kernels import regimes as kernels
from fastincentive.mdp import FloatArray
from fastincentive.problem import IncentiveProblem
from fastincentive.regimes import alike, repeat
from fastincentive.ties import break_ties, is_proper

__all__ = ["SingleFollowerOptimum", "single_follower_optimum"]

#: Bounds that floating point may miss are widened by this fraction.
SLACK = 1e-9
#: Bound and objective that differ by this fraction of the leader's stake count as equal.
CLOSE = 1e-6
#: Where the first payments to beat come from: the follower's rewards plus a multiple of the
#: leader's, in units of the follower's.
BLENDS = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
#: Up to so many random payments are tried for better ones, and of the answers so many are priced.
SAMPLES = 1000
TRIED = 20
#: Fewer are tried where the factors of I - gamma P would take more operations than this.
OPERATIONS = 3e8


@dataclass(frozen=True)
class SingleFollowerOptimum:
    """The best payments for one follower and what proves it.

    Attributes
    ----------
    payments : array (k,)
    side_payments : array (S, A)
    policy : array (S, A)
        The deterministic best response that is best for the leader.
    leader_value, cost, objective : float
        Evaluated anew at this point by ``problem.evaluate``, not by the programme.
    bound : float
        No deterministic best response to any payments has a larger objective, up to the solver's
        tolerances and but for what ``restricted`` says.
    restricted : bool
        Whether policies that visit some state more than ``max_visits`` times are left out of the
        bound; only at discount 1.
    nodes : int
        Nodes of the solver's search trees.
    seconds : float
    optimal : bool
        Whether bound and objective agree.
    message : str
        How the search ended.
    """

    payments: FloatArray
    side_payments: FloatArray
    policy: FloatArray
    leader_value: float
    cost: float
    objective: float
    bound: float
    restricted: bool
    nodes: int
    seconds: float
    optimal: bool
    message: str

    @property
    def gap(self) -> float:
        """Bound less objective."""
        return self.bound - self.objective

    def __str__(self) -> str:
        """Return a short table."""
        rows = [
            ("payments", np.array2string(self.payments, precision=6, threshold=8)),
            ("objective", f"{self.objective:.6f}"),
            ("bound", f"{self.bound:.6f}"),
            ("restricted", "yes" if self.restricted else "no"),
            ("nodes", f"{self.nodes}"),
            ("status", self.message),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def single_follower_optimum(
    problem: IncentiveProblem,
    *,
    time_limit: float = np.inf,
    max_visits: float = 1000.0,
) -> SingleFollowerOptimum:
    """Find the best payments for one follower, with a certificate, by integer programming.

    Any number of payments, tied or not, with bounds and a budget. The time grows exponentially
    with the number of states where there is a choice to make; meant for small models.

    Parameters
    ----------
    problem : IncentiveProblem
        With one follower, discounts of leader and follower in [0, 1], equal or not, and a
        ``LinearCost``.
    time_limit : float
        Seconds after which the best payments so far are returned, with the bound still open.
    max_visits : float
        At discount 1 a policy may visit a state any number of times before it leaves. More
        expected visits than this are left out; the result says if that was needed. A follower
        with discount below 1 may still settle, for ever, where the leader earns nothing.

    Returns
    -------
    SingleFollowerOptimum
        The payments are the cheapest ones for the policy, verified by exact best responses.

    Raises
    ------
    InputError
        If there are several followers, the cost is not linear, a payment that costs nothing, or
        at leader discount 1 one that could pay without bound, has no upper bound, or at follower
        discount 1 the largest payments could be earned for ever.

    Notes
    -----
    The optimality conditions of the follower with one binary per state and action, as in the
    programmes for incentive and environment design in the literature [1]_ [2]_, solved by HiGHS
    through ``scipy.optimize.milp``. The constants that switch conditions off come from exact best
    responses at the least and the largest payments that can be worth their cost. A policy that
    the solver's tolerances let pass, but that cannot be had at the price, is excluded and the
    programme solved again.

    References
    ----------
    .. [1] H. Zhang and D. Parkes, "Value-based policy teaching with active indirect elicitation",
       AAAI 2008.
    .. [2] J. F. Bard and J. T. Moore, "A branch and bound algorithm for the bilevel programming
       problem", SIAM Journal on Scientific and Statistical Computing 11, 1990.

    Examples
    --------
    >>> import fastincentive as fi
    >>> problem = fi.models.gridworld("S.L ..G", slip=0.0, discount=0.9)
    >>> best = fi.single_follower_optimum(problem)
    >>> best.payments.round(6), best.optimal
    (array([1.]), True)
    """
    _check(problem, time_limit, max_visits)
    began = time.perf_counter()
    search = _Search(problem, max_visits, began + time_limit)
    message = search.run()
    best = search.best
    assert best is not None  # for the type checker: the payments of 0 are always tried
    evaluation = problem.evaluate(best.payments, best.policies)
    return SingleFollowerOptimum(
        payments=best.payments,
        side_payments=problem.payments.side_payments(best.payments)[0],
        policy=best.policies[0],
        leader_value=evaluation.leader_value,
        cost=evaluation.cost,
        objective=evaluation.objective,
        bound=max(search.bound, evaluation.objective),
        restricted=search.restricted,
        nodes=search.nodes,
        seconds=time.perf_counter() - began,
        optimal=search.closed,
        message=message,
    )


def _check(problem: IncentiveProblem, time_limit: float, max_visits: float) -> None:
    if problem.n != 1:
        raise invalid(
            "problem",
            "one follower",
            problem.n,
            None,
            "For several followers use solve, or global_optimum if each has one payment.",
        )
    if not isinstance(problem.cost, LinearCost):
        raise invalid(
            "cost",
            "a LinearCost, because the programme is linear",
            type(problem.cost).__name__,
            None,
            "Use solve.",
        )
    if not time_limit > 0:
        raise invalid("time_limit", "a number of seconds > 0", time_limit)
    if not 1 <= max_visits < np.inf:
        raise invalid("max_visits", "a finite number >= 1", max_visits)


# -- the follower's choices, and what bounds them ---------------------------------------------


class _Pairs:
    """The reachable states, and the actions there that anybody can tell apart, as M pairs."""

    def __init__(self, problem: IncentiveProblem) -> None:
        from scipy.sparse import csr_array

        followers = problem.followers
        mdp = followers[0]
        states, actions = mdp.available.shape
        marginals = np.eye(problem.leader.n_labels)[:, None, :]
        by_label, _ = problem.leader.expectations(marginals)
        leader = np.broadcast_to(by_label[problem.leader.labels[0]], (states, actions))
        reached = np.empty(states, bool)
        kernels.reach(followers.packed, 0, mdp.available, reached, np.empty(states, np.int64))
        same = alike(followers, _kinds(problem), np.unique(leader, return_inverse=True)[1][None])
        keep = reached[:, None] & (same[0] == np.arange(actions))
        self.state, self.action = np.nonzero(keep)
        #: (S, A) the leader's reward.
        self.leader_table = np.where(mdp.available, leader, 0.0)
        self.leader_reward = leader[keep]
        self.reward = mdp.reward[keep]
        self.payment = problem.payments.index[0][keep]
        self.reached = reached
        #: (S,) number of actions to choose from.
        self.count = keep.sum(axis=1)
        #: (S,) closed classes, in which a discount of 1 stops the clock.
        self.absorbing = mdp.transition.absorbing
        #: (M, S) 1 at each pair's own state.
        self.own = _selector(self.state, states)
        #: (M, k) 1 at each pair's payment.
        self.paid = _selector(self.payment, problem.payments.size)
        model = mdp.transition
        moves = csr_array(
            (model.probability, model.successor, model.row_start), shape=(states * actions, states)
        )
        #: (M, S) transition probabilities.
        self.moves = moves[self.state * actions + self.action]

    @property
    def size(self) -> int:
        """M."""
        return self.state.size

    def used_payments(self) -> NDArray[np.bool_]:
        """(k,) whether some pair has this payment."""
        return np.asarray(self.paid.sum(axis=0) > 0)

    def running(self, discount: float) -> NDArray[np.bool_]:
        """(S,) the reachable states in which visits count."""
        return self.reached & ~(self.absorbing & (discount == 1.0))


def _kinds(problem: IncentiveProblem) -> NDArray[np.int64]:
    """Payment of each pair (1, S, A), those of single pairs by price and bound alone.

    Of two actions that differ only by payments that nothing else has, one is enough.
    """
    bound = problem.payments
    single = np.bincount(bound.index[bound.index >= 0], minlength=bound.size) == 1
    terms = np.column_stack([_prices(problem), bound.upper])
    _, kind = np.unique(terms, axis=0, return_inverse=True)
    names = np.where(single, bound.size + kind.reshape(-1), np.arange(bound.size))
    return np.where(bound.index >= 0, names[bound.index], -1)


def _prices(problem: IncentiveProblem) -> FloatArray:
    """dC/dx (k,)."""
    return np.asarray(problem.cost_pass(problem.payments.lower, np.empty(0)).payments)


def _selector(column: NDArray[np.int64], width: int) -> Any:
    """Sparse matrix with a 1 in this column of each row; -1 for none."""
    from scipy.sparse import csr_array

    at = np.flatnonzero(column >= 0)
    return csr_array((np.ones(at.size), (at, column[at])), shape=(column.size, width))


def _control(
    problem: IncentiveProblem, rewards: FloatArray, discount: float
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Optimal values (m, S), inf where unbounded, and actions of the follower's model.

    ``rewards`` is (m, S, A); ``discount`` stands in for the follower's.
    """
    count, states, _ = rewards.shape
    packed = repeat(problem.followers.packed, np.zeros(count, np.int64))
    packed = packed._replace(discount=np.full(count, discount))
    actions = np.full((count, states), -1)
    values = np.empty((count, states))
    status = np.empty(count, np.int64)
    bellman.best_responses(
        packed,
        np.ascontiguousarray(rewards),
        actions,
        values,
        np.empty(rewards.shape),
        np.empty(count),
        status,
    )
    values[status < 0] = np.inf
    return values, actions


class _Visits(NamedTuple):
    """The most discounted visits that a policy can pay to each state (S,), from the start."""

    most: FloatArray
    capped: bool


def _most_visits(
    problem: IncentiveProblem, pairs: _Pairs, discount: float, max_visits: float
) -> _Visits:
    states, actions = problem.followers.shape[1:]
    running = np.flatnonzero(pairs.running(discount))
    rewards = np.zeros((running.size, states, actions))
    rewards[np.arange(running.size), running] = 1.0
    values, _ = _control(problem, rewards, discount)
    most = np.zeros(states)
    most[running] = _from_start(problem, values) * (1.0 + SLACK)
    if discount < 1.0:
        return _Visits(most, False)
    return _Visits(np.minimum(most, max_visits), bool((most > max_visits).any()))


def _from_start(problem: IncentiveProblem, values: FloatArray) -> FloatArray:
    """Mean (m,) of values (m, S), which may be inf, over the first state."""
    initial = problem.followers.packed.initial[0]
    started = initial > 0
    return np.asarray(values[:, started] @ initial[started])


class _Range(NamedTuple):
    """What payments and values can be, if the objective is to exceed a known one."""

    most: FloatArray  # (k,) largest payments
    total: float  # largest cost
    low: FloatArray  # (S,) least V
    high: FloatArray  # (S,) largest V


def _payment_range(
    problem: IncentiveProblem, pairs: _Pairs, value_bound: float, objective: float
) -> _Range:
    bound, weight, prices = problem.payments, problem.cost_weight, _prices(problem)
    used = pairs.used_payments()
    total = np.inf if problem.budget is None else problem.budget
    if weight > 0:
        total = min(total, max(value_bound - objective, 0.0) / weight)
    total *= 1.0 + SLACK
    priced = (prices > 0) & (total < np.inf)
    alone = np.where(priced, total / np.where(prices > 0, prices, 1.0), np.inf)
    most = np.where(used, np.minimum(bound.upper, alone), 0.0)
    if (most == np.inf).any():
        k = int(np.argmax(most))
        raise invalid(
            "payments",
            "an upper bound on each payment that costs the leader nothing or may be worth any sum",
            "none",
            f"payment {k}",
            "Give Payments an upper bound or, at leader discount 1, lower the leader's discount.",
        )
    # V* is convex in x: on the simplex prices . x <= total it is largest at a corner, with the
    # payments that cost nothing at their bounds. The box of all bounds may be smaller still.
    free = np.where(priced, 0.0, most)
    single = np.flatnonzero(priced & used)
    corners = free + np.zeros((single.size + 1, 1))
    corners[np.arange(single.size), single] = alone[single]
    points = np.vstack([bound.lower, most, corners])
    rewards = problem.followers.rewards + np.concatenate([bound.side_payments(x) for x in points])
    values, _ = _control(problem, rewards, problem.followers[0].discount)
    high = np.minimum(values[1], values[2:].max(axis=0))
    if not np.isfinite(high[pairs.reached]).all():
        raise invalid(
            "payments",
            "a bounded best total reward at the largest payments worth their cost, because the "
            "follower's discount is 1",
            "a loop that could earn for ever",
            None,
            "Give Payments an upper bound, or use a follower discount below 1.",
        )
    return _Range(most, total, values[0], high)


# -- the programme ----------------------------------------------------------------------------


class _Answer(NamedTuple):
    columns: dict[str, FloatArray] | None  # None if the solver found no point
    bound: float
    status: int  # of scipy: 0 optimal, 1 limit reached, 2 infeasible, else failed
    nodes: int


@dataclass
class _Programme:
    """A mixed-integer programme by named groups of columns, to be maximised."""

    groups: dict[str, tuple[FloatArray, FloatArray, bool]] = field(default_factory=dict)
    rows: list[tuple[dict[str, Any], FloatArray, FloatArray]] = field(default_factory=list)

    def columns(
        self, name: str, lower: FloatArray, upper: FloatArray, integral: bool = False
    ) -> None:
        """Add columns with these bounds."""
        self.groups[name] = (lower, upper, integral)

    def require(self, lower: Any, upper: Any, **parts: Any) -> None:
        """Require lower <= sum of matrix @ columns <= upper, a matrix for each named group."""
        count = next(iter(parts.values())).shape[0]
        if count:
            low, high = (np.broadcast_to(np.asarray(v, float), (count,)) for v in (lower, upper))
            self.rows.append((parts, low, high))

    def maximise(self, gain: dict[str, FloatArray], seconds: float) -> _Answer:
        """Solve, for at most this many seconds."""
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import block_array, csr_array

        sizes = {name: lower.size for name, (lower, _, _) in self.groups.items()}
        blocks = [
            [
                csr_array(parts[name]) if name in parts else csr_array((low.size, sizes[name]))
                for name in sizes
            ]
            for parts, low, _ in self.rows
        ]
        options: Any = {"mip_rel_gap": 0.1 * CLOSE}
        if seconds < np.inf:
            options["time_limit"] = max(seconds, 0.01)
        result: Any = milp(
            -np.concatenate([gain.get(name, np.zeros(size)) for name, size in sizes.items()]),
            integrality=np.concatenate(
                [np.full(lower.size, integral) for lower, _, integral in self.groups.values()]
            ).astype(np.int64),
            bounds=Bounds(
                np.concatenate([lower for lower, _, _ in self.groups.values()]),
                np.concatenate([upper for _, upper, _ in self.groups.values()]),
            ),
            constraints=LinearConstraint(
                block_array(blocks, format="csc"),
                np.concatenate([low for _, low, _ in self.rows]),
                np.concatenate([high for _, _, high in self.rows]),
            ),
            options=options,
        )
        split = None
        if result.x is not None:
            at = np.cumsum(list(sizes.values()))[:-1]
            split = dict(zip(sizes, np.split(result.x, at), strict=True))
        dual = result.mip_dual_bound
        bound = np.inf if dual is None or not np.isfinite(dual) else -float(dual)
        return _Answer(split, bound, int(result.status), int(result.mip_node_count or 0))


def _build(
    problem: IncentiveProblem,
    pairs: _Pairs,
    range_: _Range,
    visits: dict[float, _Visits],
    unit: float,
) -> _Programme:
    """Return the programme with no policy excluded; rewards are divided by ``unit``."""
    programme = _Programme()
    several = (pairs.count > 1).astype(float)
    programme.columns("x", np.zeros(problem.payments.size), range_.most / unit)
    running = pairs.running(problem.followers[0].discount)
    programme.columns(
        "V", np.where(running, range_.low, 0.0) / unit, np.where(running, range_.high, 0.0) / unit
    )
    programme.columns(
        "y", 1.0 - several[pairs.state], _possible(problem, pairs, range_), integral=True
    )
    chosen = np.flatnonzero(several)
    programme.require(1.0, 1.0, y=pairs.own.T.tocsr()[chosen])
    if range_.total < np.inf:
        total = range_.total / unit
        programme.require(-np.inf, total, x=_prices(problem)[None, :])
    _add_choices(programme, problem, pairs, range_, unit)
    for discount, each in visits.items():
        _add_visits(programme, problem, pairs, each, discount)
    return programme


def _possible(problem: IncentiveProblem, pairs: _Pairs, range_: _Range) -> FloatArray:
    """1 for each pair (M,) that some payments make as good as the follower's least value."""
    discount = problem.followers[0].discount
    most = pairs.reward + pairs.paid @ range_.most + discount * (pairs.moves @ range_.high)
    size = np.abs(range_.high[pairs.reached]).max() + np.abs(pairs.reward).max()
    running = pairs.running(discount)[pairs.state]
    possible = (
        ~running
        | (pairs.count[pairs.state] == 1)
        | (most >= range_.low[pairs.state] - SLACK * size)
    )
    return possible.astype(float)


def _add_choices(
    programme: _Programme, problem: IncentiveProblem, pairs: _Pairs, range_: _Range, unit: float
) -> None:
    """V >= Q for all actions, V <= Q for those chosen; pay nothing that is never chosen."""
    from scipy.sparse import diags_array

    discount = problem.followers[0].discount
    running = pairs.running(discount)[pairs.state]
    rows = np.flatnonzero(running & (pairs.count[pairs.state] > 1))
    single = np.flatnonzero(running & (pairs.count[pairs.state] == 1))
    ahead = (pairs.own - discount * pairs.moves).tocsr()
    reward = pairs.reward / unit
    for at, upper in ((rows, np.inf), (single, reward[single])):
        programme.require(reward[at], upper, V=ahead[at], x=-pairs.paid[at])
    most = range_.high[pairs.state] - discount * (pairs.moves @ range_.low) - pairs.reward
    spread = (np.maximum(most, 0.0) / unit)[rows]
    switch = diags_array(spread) @ _selector(rows, pairs.size)
    programme.require(-np.inf, reward[rows] + spread, V=ahead[rows], x=-pairs.paid[rows], y=switch)
    # A payment that reaches every action of some state is chosen whatever happens.
    at_state = (pairs.own.T @ pairs.paid).toarray()
    sure = ((at_state == pairs.count[:, None]) & pairs.reached[:, None]).any(axis=0)
    optional = np.flatnonzero(~sure & pairs.used_payments())
    width = problem.payments.size
    programme.require(
        -np.inf,
        0.0,
        x=_selector(optional, width),
        y=-(diags_array(range_.most[optional] / unit) @ pairs.paid.T.tocsr()[optional]),
    )


def _add_visits(
    programme: _Programme,
    problem: IncentiveProblem,
    pairs: _Pairs,
    visits: _Visits,
    discount: float,
) -> None:
    """Discounted visits of the pairs: what flows in flows on, by chosen actions only.

    A follower that discounts may settle for ever in a loop where the leader earns nothing. At
    leader discount 1 what enters such a loop drains away.
    """
    from scipy.sparse import diags_array

    name = "d" if discount == problem.leader_discount else "e"
    most = visits.most[pairs.state]
    programme.columns(name, np.zeros(pairs.size), most)
    rows = np.flatnonzero((pairs.count[pairs.state] > 1) & (most > 0))
    limit = diags_array(most[rows]) @ _selector(rows, pairs.size)
    programme.require(-np.inf, 0.0, **{name: _selector(rows, pairs.size), "y": -limit})
    active = np.flatnonzero(pairs.running(discount))
    parts = {name: (pairs.own - discount * pairs.moves).T.tocsr()[active]}
    if discount == 1.0 > problem.followers[0].discount:
        states = pairs.reached.size
        programme.columns("drain", np.zeros(states), pairs.running(1.0).astype(float))
        parts["drain"] = _selector(active, states)
        if (pairs.leader_reward < 0).any():
            # Else nobody gains by draining too early.
            _add_settled(programme, pairs)
    initial = problem.followers.packed.initial[0][active]
    programme.require(initial, initial, **parts)


def _add_settled(programme: _Programme, pairs: _Pairs) -> None:
    """Let visits drain only from states from where the leader never earns or loses again."""
    states = pairs.reached.size
    active = pairs.running(1.0)
    programme.columns("settled", np.zeros(states), active.astype(float))
    every = np.flatnonzero(active)
    programme.require(
        -np.inf, 0.0, drain=_selector(every, states), settled=-_selector(every, states)
    )
    earning = np.flatnonzero((pairs.leader_reward != 0) & active[pairs.state])
    choose = _selector(earning, pairs.size)
    programme.require(-np.inf, 1.0, settled=_selector(pairs.state[earning], states), y=choose)
    origin, target = pairs.moves.nonzero()
    steps = active[pairs.state[origin]] & active[target] & (pairs.state[origin] != target)
    origin, target = origin[steps], target[steps]
    programme.require(
        -np.inf,
        1.0,
        settled=_selector(pairs.state[origin], states) - _selector(target, states),
        y=_selector(origin, pairs.size),
    )


# -- the search -------------------------------------------------------------------------------


class _Point(NamedTuple):
    """Verified payments."""

    payments: FloatArray
    policies: FloatArray  # (1, S, A)
    objective: float


class _Search:
    """Solve, verify what the solver found, exclude it if it does not keep its promise; repeat."""

    def __init__(self, problem: IncentiveProblem, max_visits: float, deadline: float) -> None:
        self.problem = problem
        self.pairs = pairs = _Pairs(problem)
        self.deadline = deadline
        self.nodes = 0
        self.best: _Point | None = None
        #: (S,) what the follower does without payments.
        self._alone = problem.followers.best_responses(problem.followers.rewards).actions[0]
        #: No policy is worth more to the leader.
        self.bound = self._value_bound()
        for policies in self._first_policies():
            self._try(policies, problem.payments.lower)
        for policies in self._sampled_policies():
            self._try(policies, problem.payments.lower)
        objective = self.objective
        self._range = _payment_range(problem, pairs, self.bound, objective)
        counted = [problem.leader_discount]
        if problem.followers[0].discount == 1.0 > problem.leader_discount:
            counted.append(1.0)
        visits = {each: _most_visits(problem, pairs, each, max_visits) for each in counted}
        self.restricted = any(each.capped for each in visits.values())
        highest = np.abs(
            np.concatenate([self._range.low, self._range.high])[np.tile(pairs.reached, 2)]
        )
        self._unit = float(max(highest.max(), 1e-9)) / 10.0
        self._programme = _build(problem, pairs, self._range, visits, self._unit)
        spread = self.bound - objective
        self._stake = max(spread if spread < np.inf else 1.0, abs(objective), 1e-9)

    @property
    def objective(self) -> float:
        """The best verified objective."""
        return -np.inf if self.best is None else self.best.objective

    @property
    def closed(self) -> bool:
        """Whether the bound is met."""
        return self.bound - self.objective <= CLOSE * self._stake

    def run(self) -> str:
        """Close the gap between bound and objective as far as time allows; say how it ended."""
        excluded = 0
        while not self.closed:
            left = self.deadline - time.perf_counter()
            if left <= 0:
                return f"time limit reached, gap {self.bound - self.objective:.3g}"
            answer = self._programme.maximise(self._gain(), left)
            self.nodes += answer.nodes
            if answer.status == 2:
                # Every policy that could do better has been excluded.
                self.bound = self.objective
                break
            self.bound = min(self.bound, max(answer.bound * self._stake / 10.0, self.objective))
            if answer.columns is None and answer.status != 1:
                return "the solver failed"
            if answer.columns is None:
                continue
            policies = self._policies(answer.columns["y"])
            self._try(policies, answer.columns["x"] * self._unit)
            if not self.closed:
                excluded += 1
                if not self._exclude(policies):
                    self.bound = self.objective
        return f"optimal; {excluded} policies excluded" if excluded else "optimal"

    def _gain(self) -> dict[str, FloatArray]:
        """Return the objective; the solver's tolerances are absolute, so the stake counts as 10."""
        problem, pairs = self.problem, self.pairs
        scale = 10.0 / self._stake
        discount = problem.leader_discount
        cost = problem.cost_weight * _prices(problem)
        earned = np.where(pairs.running(discount)[pairs.state], pairs.leader_reward, 0.0)
        return {"d": scale * earned, "x": -scale * self._unit * cost}

    def _value_bound(self) -> float:
        """Bound on the leader's value: what it would get if it were to choose."""
        problem, reward = self.problem, self.pairs.leader_table
        if problem.leader_discount == 1.0:
            # Losses do not count: a follower that settles for ever may avoid them.
            reward = np.maximum(reward, 0.0)
        values, _ = _control(problem, reward[None], problem.leader_discount)
        total = float(_from_start(problem, values)[0])
        return total + SLACK * abs(total)

    def _first_policies(self) -> Iterator[FloatArray]:
        """Yield policies that serve both in several proportions, the follower alone first."""
        problem = self.problem
        mdp = problem.followers[0]
        size = np.abs(mdp.reward).max() / max(np.abs(self.pairs.leader_table).max(), 1e-300)
        blends = np.array(BLENDS)[:, None, None] * max(size, 1e-9) * self.pairs.leader_table
        values, actions = _control(problem, mdp.reward + blends, mdp.discount)
        seen = set()
        for value, action in zip(values, actions, strict=True):
            if np.isfinite(value).all() and action.tobytes() not in seen:
                seen.add(action.tobytes())
                yield np.eye(mdp.n_actions)[action][None]

    def _sampled_policies(self) -> Iterator[FloatArray]:
        """Yield the most promising of the best responses to random payments, most of them small."""
        problem = self.problem
        followers, bound = problem.followers, problem.payments
        most = _payment_range(problem, self.pairs, self.bound, self.objective).most
        rng = np.random.default_rng(0)
        count = min(SAMPLES, int(OPERATIONS / followers.n_states**3) + 1)
        shape = (count, bound.size)
        paid = rng.random(shape) < rng.random((count, 1))
        points = np.where(paid, most * rng.random(shape) ** 3, 0.0)
        points = np.stack([bound.project(x) for x in points])
        rewards = followers.rewards + np.concatenate([bound.side_payments(x) for x in points])
        values, actions = _control(problem, rewards, followers[0].discount)
        bounded = np.isfinite(values).all(axis=1)
        points, actions = points[bounded], actions[bounded]
        policies, first = np.unique(actions, axis=0, return_index=True)
        choices = np.eye(followers.n_actions)[policies]
        worth = self._leader_values(choices) - problem.cost_weight * (
            points[first] @ _prices(problem)
        )
        for k in np.argsort(-worth)[:TRIED]:
            yield choices[k][None]

    def _leader_values(self, policies: FloatArray) -> FloatArray:
        """Leader's values (m,) of policies (m, S, A), at discount 1 with a discount near it."""
        problem = self.problem
        count, states, _ = policies.shape
        packed = repeat(problem.followers.packed, np.zeros(count, np.int64))
        discount = min(problem.leader_discount, 0.999)
        values = np.empty((count, states))
        bellman.evaluate_policies(
            packed._replace(discount=np.full(count, discount)),
            np.repeat(self.pairs.leader_table[None], count, axis=0),
            policies,
            values,
            np.empty(policies.shape),
            np.empty((count, states)),
            np.empty(count, np.int64),
        )
        return _from_start(problem, values)

    def _policies(self, chosen: FloatArray) -> FloatArray:
        """(1, S, A) from y (M,); where it never comes the follower does as without payments."""
        pairs = self.pairs
        alone = np.eye(self.problem.followers.n_actions)[self._alone]
        choice = alone.copy()
        for s in np.flatnonzero(pairs.reached):
            at = np.flatnonzero(pairs.state == s)
            choice[s] = 0.0
            choice[s, pairs.action[at[np.argmax(chosen[at])]]] = 1.0
        met = self._met(choice)
        return np.where(met[:, None], choice, alone)[None]

    def _met(self, policy: FloatArray) -> NDArray[np.bool_]:
        """(S,) the states that a policy (S, A) comes to."""
        met = np.empty(policy.shape[0], bool)
        packed = self.problem.followers.packed
        kernels.reach(packed, 0, policy > 0, met, np.empty(met.size, np.int64))
        return met

    def _try(self, policies: FloatArray, otherwise: FloatArray) -> None:
        """Verify a policy at its cheapest payments, or what the follower does at the others."""
        problem = self.problem
        payments = problem.payments.project(otherwise)
        if is_proper(problem, policies):
            with suppress(InfeasiblePolicyError):
                payments = cheapest_payments(problem, policies).payments
        response = break_ties(problem, payments, 1.0, start=policies)
        value = problem.leader_pass(response, gradient=False).value
        objective = problem.net(value, problem.cost_at(payments, response))
        if objective > self.objective:
            self.best = _Point(payments, response, objective)

    def _exclude(self, policies: FloatArray) -> bool:
        """Rule out what a policy does where it comes; False if nothing else is left."""
        pairs = self.pairs
        met = self._met(policies[0])
        taken = (policies[0, pairs.state, pairs.action] > 0) & met[pairs.state]
        taken &= pairs.count[pairs.state] > 1
        if not taken.any():
            return False
        self._programme.require(-np.inf, taken.sum() - 1.0, y=taken.astype(float)[None, :])
        return True
