"""Upper bounds on what payments can bring the leader."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive._checks import checked
from fastincentive.certificates.joint_control import (
    Control,
    Losses,
    affordable,
    find_losses,
    lasting_pairs,
)
from fastincentive.certificates.mixture_bound import bound_with_lots, in_reach, programmes_of_one
from fastincentive.errors import InputError, MemoryLimitError
from fastincentive.followers.followers import Followers
from fastincentive.followers.mdp import TabularMDP
from fastincentive.followers.policies import uniform_over
from fastincentive.problem.costs import ExpectedSpend, LinearCost, QuadraticCost
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.menus import Menus, collect, coordinate_lines
from fastincentive.responses.mixtures import best_mixture, mixing_may_help
from fastincentive.responses.search import Search
from fastincentive.responses.ties import broken_ties

__all__ = ["bound_beyond", "label_masks", "most_worth_paying", "reference_labels", "upper_bound"]

#: Shares of the uniform law in the label frequencies at which majorants are fitted.
MIXTURES = (0.01, 0.1, 0.3, 1.0)
#: Steps counted in these frequencies.
REFERENCE_STEPS = 512


@checked
def upper_bound(problem: IncentiveProblem, *, mixed: bool = True) -> float:
    """Bound the objective from above, whatever the payments.

    No payments give the leader a larger objective, however ties between best responses are broken.

    Parameters
    ----------
    problem : IncentiveProblem
    mixed : bool
        By default the bound holds for all best responses, also for those that draw lots between
        tied actions. With ``mixed=False`` it is over deterministic responses only: the leader may
        get more, as ``solve`` does where it finds that (``Solution.mixed``).

    Returns
    -------
    float
        The least of the bounds that apply; inf if none does.

    Raises
    ------
    InputError
        If without payments a follower's best total reward is unbounded (discount 1).

    Notes
    -----
    Write x for the payments, d_i for the unnormalised occupancy of follower i with its own
    discount, and V_i for its value without payments. If pi_i is a best response, the payments make
    good what it loses by it: <d_i, x_i> >= loss_i = V_i* - V_i(pi_i) >= 0. If no policy visits
    the pairs of payment k more than D_ik times, this gives, for all multipliers c >= 0 with
    sum_i c_i D_ik <= w p_k at every k, that the cost is at least sum_i c_i loss_i, where p is the
    gradient of C at no payments (C convex). The bound is the optimum of

        V(pi) - sum_i c_i loss_i(pi_i)

    over all joint, history-dependent policies: the Lagrangian relaxation of a constrained MDP
    [1]_. It is computed by dynamic programming for one follower and for two that are small enough.
    Otherwise the leader's reward is replaced by a sum over followers that is never below it, and
    each follower is controlled alone. Followers that no payment reaches take optimal actions.

    The cost of ``ExpectedSpend`` enters with c_i the least price times w where the leader is at
    least as patient as the follower. Other costs than these, ``LinearCost`` and ``QuadraticCost``
    are taken to be >= 0, and no more. Budgets and upper limits of payments are left out.

    Where each follower has at most one payment, of its own, the deterministic best responses are
    listed. Then, over these, the bound is at most what the best pair of two followers' responses
    brings (their optimum, see ``global_optimum``), or with more followers the best choice of
    responses if each may change with time. The same holds over all responses where lots bring
    nothing: where the leader's value is a sum over followers and no budget bounds what is spent.
    Else branch and bound over the breakpoints of the responses, and over boxes of the
    probabilities of tied actions, sharpens the bound for few followers with few states, on small
    problems until it is the optimum. One follower under a budget on ``ExpectedSpend`` is a linear
    programme at each breakpoint: a constrained MDP.

    References
    ----------
    .. [1] E. Altman, Constrained Markov Decision Processes, Chapman & Hall/CRC, 1999.

    Examples
    --------
    >>> import fastincentive as fi
    >>> problem = fi.models.example1()
    >>> bool(fi.upper_bound(problem) >= fi.solve(problem).objective - 1e-9)
    True
    """
    problem.refuse_types("upper_bound")
    least = _bound_by_losses(problem)
    alike = not mixing_may_help(problem)
    if alike or not mixed:
        least = min(least, _bound_by_lists(problem))
    # The lists are exact for two followers.
    if not alike and (mixed or problem.n > 2):
        least = min(least, _bound_with_lots(problem, least))
    return least


def _bound_by_losses(problem: IncentiveProblem) -> float:
    """Bound by what payments must make good to followers, see the notes of ``upper_bound``."""
    losses = find_losses(problem, problem.payments.lower)
    multipliers, reached = _multipliers(problem)
    allowed = np.where(reached[:, None, None], problem.followers.available, losses.tied)
    if affordable(problem):
        return _bound_jointly(problem, losses, allowed, multipliers)
    return _bound_separately(problem, losses, allowed, multipliers)


def bound_beyond(problem: IncentiveProblem, menus: Menus) -> float:
    """Bound on the objective of all responses to payments beyond those that menus list."""
    if menus.unseen == np.inf:
        return -np.inf
    if not isinstance(problem.cost, (LinearCost, QuadraticCost)):
        return np.inf
    if problem.leader_discount < 1.0:
        value = problem.magnitude / (1.0 - problem.leader_discount)
    else:
        value = _bound_by_losses(problem.replace(cost_weight=0.0))
    return value - problem.cost_weight * menus.unseen


def most_worth_paying(problem: IncentiveProblem) -> float:
    """Bound w C at payments that bring the leader no less than none do; inf if there is no bound.

    Where V - w C >= f(0), the objective without payments, w C is at most V - f(0). It is also at
    most 2 (B - f(0)), where B bounds V - w C / 2 and may be finite where the leader's value is not.
    """
    none = problem.payments.lower
    followed = broken_ties(problem, none, 1.0).policies
    alone = problem.evaluate(none, followed, unbounded=True).objective
    for share in (0.0, 0.5):
        value = _bound_by_losses(problem.replace(cost_weight=share * problem.cost_weight))
        most = (value - alone) / (1.0 - share)
        if most < np.inf:
            # Widened, for bounds hold up to rounding.
            return 1.01 * max(most, 1e-9 * max(1.0, abs(alone)))
    return np.inf


def _multipliers(problem: IncentiveProblem) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Least cost (n,) of a unit of each follower's loss, and (n,) whom payments reach at all."""
    payments, weight = problem.payments, problem.cost_weight
    visits = _most_visits(problem)
    reached = np.asarray((visits > 0.0).any(axis=1))
    out = np.zeros(problem.n)
    if isinstance(problem.cost, ExpectedSpend):
        prices = np.broadcast_to(problem.cost.prices, payments.size)
        patient = problem.leader_discount >= problem.followers.packed.discount
        for i in np.flatnonzero(reached & patient):
            out[i] = weight * prices[visits[i] > 0.0].min()
    elif isinstance(problem.cost, (LinearCost, QuadraticCost)):
        prices = problem.cost.gradient(payments.lower.copy())
        for i in np.flatnonzero(reached):
            k = visits[i] > 0.0
            # Shared payments are split by what the followers could make of them.
            out[i] = weight * float((prices[k] / visits[:, k].sum(axis=0)).min())
    return out, reached


def _most_visits(problem: IncentiveProblem) -> FloatArray:
    """Most discounted visits (n, k) that any policy pays to each payment, inf if unbounded."""
    payments, followers = problem.payments, problem.followers
    visits = np.zeros((problem.n, payments.size))
    for column in payments.reach.T:
        rewards = ((payments.index == column[:, None, None]) & (payments.index >= 0)).astype(float)
        most = np.array(
            [
                _largest_value(mdp, each) if number >= 0 else 0.0
                for mdp, each, number in zip(followers, rewards, column, strict=True)
            ]
        )
        paid = column >= 0
        visits[paid, column[paid]] = most[paid]
    return visits


def _largest_value(mdp: TabularMDP, rewards: FloatArray) -> float:
    alone = Followers([mdp])
    try:
        return float(alone.start_values(alone.best_responses(rewards[None]).values)[0])
    except InputError:
        # At discount 1 the follower can come back for ever.
        return np.inf


def _bound_jointly(
    problem: IncentiveProblem,
    losses: Losses,
    allowed: NDArray[np.bool_],
    multipliers: FloatArray,
) -> float:
    control = Control(
        problem.followers,
        range(2),
        problem.leader.labels,
        problem.leader.label_table(),
        problem.leader_discount,
        losses.loss,
        allowed,
    )
    return control.maximum(multipliers)[0]


def _bound_separately(
    problem: IncentiveProblem,
    losses: Losses,
    allowed: NDArray[np.bool_],
    multipliers: FloatArray,
) -> float:
    possible, lasting = label_masks(problem, allowed)
    least = np.inf
    mixtures = MIXTURES if problem.leader.additive_parts() is None else (1.0,)
    for share in mixtures:
        reference = reference_labels(problem, losses.actions, possible, share)
        own = problem.leader.majorant(1.0, possible, lasting, reference)
        if own is None:
            continue
        total = 0.0
        for i in range(problem.n):
            control = Control(
                problem.followers,
                [i],
                problem.leader.labels,
                own[i][:, None],
                problem.leader_discount,
                losses.loss,
                allowed,
            )
            total += control.maximum(multipliers[i : i + 1])[0]
        least = min(least, total)
    return least


def label_masks(
    problem: IncentiveProblem, allowed: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Labels (n, L) that allowed actions can show, and that they can show for ever.

    The second is empty below a leader's discount of 1.
    """
    labels = np.broadcast_to(problem.leader.labels, problem.followers.shape)
    possible = np.zeros((problem.n, problem.leader.n_labels), bool)
    lasting = np.zeros_like(possible)
    for i in range(problem.n):
        possible[i, labels[i][allowed[i]]] = True
        if problem.leader_discount == 1.0:
            lasting[i, labels[i][lasting_pairs(problem.followers, i, allowed[i])]] = True
    return possible, lasting


def reference_labels(
    problem: IncentiveProblem,
    actions: NDArray[np.int64],
    possible: NDArray[np.bool_],
    share: float,
) -> FloatArray:
    """Discounted label frequencies (n, L) of actions (n, S), mixed with a share of uniform ones."""
    policies = problem.followers.deterministic_policies(actions)
    gamma = problem.leader_discount
    marginals = problem.forward(policies, REFERENCE_STEPS).marginals
    seen = np.einsum("t,til->il", gamma ** np.arange(len(marginals)), marginals)
    uniform = uniform_over(possible)
    return (1.0 - share) * seen / seen.sum(axis=1, keepdims=True) + share * uniform


def _listed(problem: IncentiveProblem) -> tuple[Menus, float] | None:
    """List all deterministic best responses, and bound what lies beyond; None if that fails."""
    try:
        menus = collect(problem, coordinate_lines(problem, problem.payments.lower))
    except MemoryLimitError:
        return None
    far = bound_beyond(problem, menus)
    return (menus, far) if menus.complete and far < np.inf else None


def _bound_by_lists(problem: IncentiveProblem) -> float:
    """Bound by lists of all deterministic best responses, inf if they cannot be listed."""
    known = isinstance(problem.cost, (ExpectedSpend, LinearCost, QuadraticCost))
    if problem.payments.shared or problem.payments.reach.shape[1] > 1 or not known:
        return np.inf
    listed = _listed(problem)
    if listed is None:
        return np.inf
    menus, far = listed
    search = Search(problem, menus)
    if problem.n == 1:
        near = float(search.single_values().max()) + menus.tail
    elif problem.n == 2:
        near = float(search.pair_values(menus.first[:-1], 0, 1).max()) + menus.tail
    else:
        near = _bound_relaxed(search, menus)
    return max(near, far)


def _bound_with_lots(problem: IncentiveProblem, most: float) -> float:
    """Bound by branch and bound over mixtures, inf where that is too much."""
    payments = problem.payments
    if payments.shared or payments.reach.shape[1] > 1:
        return np.inf
    if problem.n == 1:
        return programmes_of_one(problem)
    if not in_reach(problem):
        return np.inf
    listed = _listed(problem)
    if listed is None:
        return np.inf
    menus, far = listed
    search = Search(problem, menus)
    pick, _ = search.climb(menus.first[:-1], True, [])
    x, policies = search.payments(pick), search.policies(pick)
    known = problem.evaluate(x, policies, unbounded=True).objective
    found = best_mixture(problem, x, policies, known)
    known = known if found is None else found.objective
    return max(bound_with_lots(problem, known, most), far)


def _bound_relaxed(search: Search, menus: Menus) -> float:
    """Largest bound over the entries of the follower with most, the others' choice relaxed."""
    problem, costs = search.problem, search.costs
    weights = np.asarray(search.weights, float)
    entries = [np.arange(*menus.first[i : i + 2]) for i in range(problem.n)]
    candidates: list[FloatArray] = [
        np.ascontiguousarray(menus.marginals[:, each].transpose(1, 0, 2)) for each in entries
    ]
    fixed = int(np.argmax([each.size for each in entries]))
    least = sum(costs.least(each) for i, each in enumerate(entries) if i != fixed)
    best = -np.inf
    for entry, marginals in zip(entries[fixed], candidates[fixed], strict=True):
        chosen: list[FloatArray] = [
            marginals[None] if i == fixed else each for i, each in enumerate(candidates)
        ]
        value = problem.leader.relaxed(chosen, weights) - costs.least(np.array([entry]))
        best = max(best, value)
    return best - least + menus.tail
