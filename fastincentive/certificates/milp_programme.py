"""The mixed-integer programme of one follower: columns and rows, solved by HiGHS."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from fastincentive._arrays import FloatArray
from fastincentive._highs import milp
from fastincentive.certificates.milp_data import SLACK, Pairs, Range, Visits, prices_of, selector
from fastincentive.problem.problem import IncentiveProblem

__all__ = ["CLOSE", "build_programme"]

#: Bound and objective that differ by this fraction of the leader's stake count as equal.
CLOSE = 1e-6


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
        from scipy.optimize import Bounds, LinearConstraint
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
        upper = np.inf if dual is None or not np.isfinite(dual) else -float(dual)
        return _Answer(split, upper, int(result.status), int(result.mip_node_count or 0))


def build_programme(
    problem: IncentiveProblem,
    pairs: Pairs,
    range_: Range,
    visits: dict[float, Visits],
    unit: float,
) -> _Programme:
    """Return the programme with no policy excluded; rewards are divided by ``unit``."""
    from scipy.sparse import diags_array

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
        programme.require(-np.inf, total, x=prices_of(problem)[None, :])
    _add_choices(programme, problem, pairs, range_, unit)
    for discount, each in visits.items():
        _add_visits(programme, problem, pairs, each, discount)
    if pairs.idle.any():
        # Who stays for ever has value 0.
        idle = np.flatnonzero(pairs.idle)
        high = range_.high[idle] / unit
        size = pairs.idle.size
        stays = diags_array(high) @ selector(idle, size)
        programme.require(-np.inf, high, V=selector(idle, size), stay=stays)
    return programme


def _possible(problem: IncentiveProblem, pairs: Pairs, range_: Range) -> FloatArray:
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
    programme: _Programme, problem: IncentiveProblem, pairs: Pairs, range_: Range, unit: float
) -> None:
    """V >= Q for all actions, V <= Q for those chosen; pay nothing that is never chosen."""
    from scipy.sparse import diags_array

    discount = problem.followers[0].discount
    running = pairs.running(discount)[pairs.state]
    rows = np.flatnonzero(running & (pairs.count[pairs.state] > 1))
    single = np.flatnonzero(running & (pairs.count[pairs.state] == 1))
    bellman_rows = (pairs.own - discount * pairs.moves).tocsr()
    reward = pairs.reward / unit
    for at, upper in ((rows, np.inf), (single, reward[single])):
        programme.require(reward[at], upper, V=bellman_rows[at], x=-pairs.paid[at])
    most = range_.high[pairs.state] - discount * (pairs.moves @ range_.low) - pairs.reward
    spread = (np.maximum(most, 0.0) / unit)[rows]
    switch = diags_array(spread) @ selector(rows, pairs.size)
    programme.require(
        -np.inf, reward[rows] + spread, V=bellman_rows[rows], x=-pairs.paid[rows], y=switch
    )
    # A payment that reaches every action of some state is chosen whatever happens.
    at_state = (pairs.own.T @ pairs.paid).toarray()
    sure = ((at_state == pairs.count[:, None]) & pairs.reached[:, None]).any(axis=0)
    optional = np.flatnonzero(~sure & pairs.used_payments())
    width = problem.payments.size
    programme.require(
        -np.inf,
        0.0,
        x=selector(optional, width),
        y=-(diags_array(range_.most[optional] / unit) @ pairs.paid.T.tocsr()[optional]),
    )


def _add_visits(
    programme: _Programme,
    problem: IncentiveProblem,
    pairs: Pairs,
    visits: Visits,
    discount: float,
) -> None:
    """Discounted visits of the pairs: what flows in flows on, by chosen actions only.

    A follower that discounts may settle for ever in a loop where the leader earns nothing. At
    leader discount 1 visits to such a loop are not finite: what flows into it may leave the
    balance there, as ``outflow``. A follower that does not discount may stay for ever where it
    earns nothing: it leaves the balance as ``stay``.
    """
    from scipy.sparse import diags_array

    name = "d" if discount == problem.leader_discount else "e"
    most = visits.most[pairs.state]
    programme.columns(name, np.zeros(pairs.size), most)
    rows = np.flatnonzero((pairs.count[pairs.state] > 1) & (most > 0))
    limit = diags_array(most[rows]) @ selector(rows, pairs.size)
    programme.require(-np.inf, 0.0, **{name: selector(rows, pairs.size), "y": -limit})
    active = np.flatnonzero(pairs.running(discount))
    parts = {name: (pairs.own - discount * pairs.moves).T.tocsr()[active]}
    if discount == 1.0 > problem.followers[0].discount:
        states = pairs.reached.size
        programme.columns("outflow", np.zeros(states), pairs.running(1.0).astype(float))
        parts["outflow"] = selector(active, states)
        if (pairs.leader_reward < 0).any():
            # Else nobody gains by an outflow that comes too early.
            _add_settled(programme, pairs)
    elif discount == 1.0 and pairs.idle.any():
        states = pairs.reached.size
        if "stay" not in programme.groups:
            programme.columns("stay", np.zeros(states), pairs.idle.astype(float))
            every = np.flatnonzero(pairs.idle)
            chosen = (diags_array(pairs.stays) @ pairs.own).T.tocsr()[every]
            programme.require(-np.inf, 0.0, stay=selector(every, states), y=-chosen)
        parts["stay"] = selector(active, states)
    initial = problem.followers.packed.initial[0][active]
    programme.require(initial, initial, **parts)


def _add_settled(programme: _Programme, pairs: Pairs) -> None:
    """Allow an outflow only at states from where the leader never earns or loses again."""
    states = pairs.reached.size
    active = pairs.running(1.0)
    programme.columns("settled", np.zeros(states), active.astype(float))
    every = np.flatnonzero(active)
    programme.require(
        -np.inf, 0.0, outflow=selector(every, states), settled=-selector(every, states)
    )
    earning = np.flatnonzero((pairs.leader_reward != 0) & active[pairs.state])
    choose = selector(earning, pairs.size)
    programme.require(-np.inf, 1.0, settled=selector(pairs.state[earning], states), y=choose)
    origin, target = pairs.moves.nonzero()
    steps = active[pairs.state[origin]] & active[target] & (pairs.state[origin] != target)
    origin, target = origin[steps], target[steps]
    programme.require(
        -np.inf,
        1.0,
        settled=selector(pairs.state[origin], states) - selector(target, states),
        y=selector(origin, pairs.size),
    )
