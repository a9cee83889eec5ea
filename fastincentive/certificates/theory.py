"""Constants of the paper's convergence theorem: smoothness, step bound, and Corollary 3's kappa.

Smoothness rests on Proposition 3 of the paper (Lemma 53 of Agarwal, Kakade, Lee & Mahajan, 2021,
On the theory of policy gradient methods, JMLR 22(98)). Let pi_alpha be the policy at
theta + alpha u with |u| = 1. If in every state

    sum_a |d pi_alpha(a|s) / d alpha| <= C1   and   sum_a |d^2 pi_alpha(a|s) / d alpha^2| <= C2,

then |d^2 V / d alpha^2| <= B (C2 / (1 - gamma)^2 + 2 gamma C1^2 / (1 - gamma)^3) for every first
state, B being a bound on |R(s, a)|; the paper has B = 1. The gradient of V is then Lipschitz in
theta with that constant. At gamma = 1 it is infinite, unless a follower is absorbed whatever it
does: then the most steps T that it can take on average stand for 1 / (1 - gamma), for |Q| <= B T,
|V'| <= C1 B T^2 and |V''| <= T (C2 B T + 2 gamma C1 |V'|).

C1 and C2 of n followers with |A| actions each, temperature tau
----------------------------------------------------------------
Write v_i for the norm of u's part at follower i's state, so that sum_i v_i^2 <= 1.

=========  =======================  ========================================
           derived here             printed in Appendix D
=========  =======================  ========================================
direct     C1 = sqrt(n |A|)         n |A|
           C2 = (n - 1) |A|         n (n - 1) |A|
softmax    C1 = 1 / (sqrt(2) tau)   2 n
           C2 = 1 / tau^2           n |A|^2 (n |A| + 2 tau - 1) / tau^2
=========  =======================  ========================================

- Direct: follower i's part has sum_a |u_i(a)| <= sqrt(|A|) v_i, and the other followers'
  probabilities sum to 1. Hence C1 = max sum_i sqrt(|A|) v_i, and the second derivative, which has
  mixed terms only, gives C2 = max |A| ((sum_i v_i)^2 - sum_i v_i^2).
- Softmax: with z_i = u_i(a_i) minus its mean under pi_i, the joint policy has derivatives
  pi(a) sum_i z_i / tau and pi(a) ((sum_i z_i)^2 - sum_i var z_i) / tau^2. The z_i are independent
  and var z_i <= v_i^2 / 2, so the absolute sums are at most sqrt(1 / 2) / tau and 1 / tau^2,
  whatever n.
- The printed softmax C1 lacks 1 / tau and is no bound for tau < 1 / (sqrt(8) n): with one follower
  and two equally likely actions the sum reaches 1 / (sqrt(2) tau), 14.1 at tau = 0.05, not 2.
- The printed direct C2 puts n (n - 1) |A| for n (n - 1) sums over joint actions of |A|^2 each; as
  the derived constant is smaller, the result holds nevertheless.
- The printed softmax C2 uses 2 / tau for a second derivative that grows like 1 / tau^2; for
  |A| >= 2 it is large enough to hold all the same.
"""

from __future__ import annotations

import numpy as np

from fastincentive._arrays import LARGEST
from fastincentive._checks import checked
from fastincentive.certificates.pl_inequality import pl_constant
from fastincentive.errors import InputError, invalid
from fastincentive.followers.parameterization import Parameterization, Softmax
from fastincentive.followers.single import best_response
from fastincentive.problem.costs import LinearCost, QuadraticCost
from fastincentive.problem.problem import IncentiveProblem

__all__ = [
    "leader_smoothness",
    "pl_constant",
    "policy_constants",
    "smoothness_direct",
    "smoothness_softmax",
    "step_bound",
]


@checked
def smoothness_direct(discount: float, n_actions: int, reward_bound: float = 1.0) -> float:
    """Lipschitz constant of a follower's policy gradient, direct parameterization (Prop. 2).

    Parameters
    ----------
    discount : float in [0, 1)
    n_actions : int
        |A|.
    reward_bound : float
        B, a bound on |R(s, a) + x(s, a)|.

    Returns
    -------
    float
        2 gamma |A| B / (1 - gamma)^3. The paper states it for rewards in [0, 1], B = 1; V is
        linear in the reward, so it scales with B.

    Raises
    ------
    InputError
        If the discount is 1, where no bound exists, or an argument is not as described.
    """
    gamma = _checked_discount("discount", discount)
    count = _checked_count("n_actions", n_actions)
    return 2.0 * gamma * count * _checked_reward_bound(reward_bound) / (1.0 - gamma) ** 3


@checked
def smoothness_softmax(
    discount: float, temperature: float = 1.0, reward_bound: float = 1.0
) -> float:
    """Lipschitz constant of a follower's policy gradient, softmax parameterization (Prop. 2).

    Parameters
    ----------
    discount : float in [0, 1)
    temperature : float
        tau > 0.
    reward_bound : float
        B, a bound on |R(s, a) + x(s, a)|.

    Returns
    -------
    float
        8 B / (tau^2 (1 - gamma)^3). The paper states it for rewards in [0, 1] and tau = 1: V is
        linear in the reward and a function of theta / tau. ``leader_smoothness`` gives an eighth
        of it.

    Raises
    ------
    InputError
        If the discount is 1, where no bound exists, or an argument is not as described.
    """
    gamma = _checked_discount("discount", discount)
    most, tau = _checked_reward_bound(reward_bound), _checked_temperature(temperature)
    return 8.0 * most / (tau**2 * (1.0 - gamma) ** 3)


@checked
def policy_constants(
    n: int,
    n_actions: int,
    parameterization: str = "direct",
    temperature: float = 1.0,
    source: str = "derived",
) -> tuple[float, float]:
    """C1 and C2 of the joint policy of n followers (Lemma 3; the table in the module's docstring).

    Parameters
    ----------
    n : int
        Number of followers.
    n_actions : int
        |A|, actions of each follower.
    parameterization : "direct" or "softmax"
    temperature : float
        tau > 0; only softmax reads it.
    source : "derived" or "paper"
        The constants derived in the module's docstring, or those printed in Appendix D. The printed
        C1 of the softmax is no bound for small temperatures.

    Returns
    -------
    (float, float)
        Bounds on the absolute sums over joint actions of the first and second derivative of the
        joint policy in a unit direction.

    Raises
    ------
    InputError
        If an argument is not as described.
    """
    followers, actions = _checked_count("n", n), _checked_count("n_actions", n_actions)
    tau = _checked_temperature(temperature)
    if source not in ("derived", "paper"):
        raise invalid("source", '"derived" or "paper"', repr(source))
    printed = source == "paper"
    if parameterization == "direct":
        if printed:
            return followers * actions, followers * (followers - 1) * actions
        return float(np.sqrt(followers * actions)), (followers - 1) * actions
    if parameterization == "softmax":
        if printed:
            pairs = followers * actions
            return 2.0 * followers, pairs * actions * (pairs + 2.0 * tau - 1.0) / tau**2
        return float(np.sqrt(0.5)) / tau, 1.0 / tau**2
    raise invalid("parameterization", '"direct" or "softmax"', repr(parameterization))


@checked
def leader_smoothness(
    discount: float,
    n: int,
    n_actions: int,
    parameterization: str = "direct",
    temperature: float = 1.0,
    reward_bound: float = 1.0,
    source: str = "derived",
) -> float:
    """Lipschitz constant of the gradient of the leader's value in theta (Lemma 3 and Prop. 3).

    Parameters
    ----------
    discount : float in [0, 1)
        The leader's gamma.
    n, n_actions, parameterization, temperature, source
        As for ``policy_constants``.
    reward_bound : float
        B, a bound on the leader's |reward|.

    Returns
    -------
    float
        B (C2 / (1 - gamma)^2 + 2 gamma C1^2 / (1 - gamma)^3).

    Notes
    -----
    With n = 1 this is the constant of a follower: 2 gamma |A| B / (1 - gamma)^3 as in Proposition 2
    for the direct parameterization, and for softmax B / (tau^2 (1 - gamma)^3), for any n.

    Raises
    ------
    InputError
        If the discount is 1, where no bound exists, or an argument is not as described.
    """
    gamma = _checked_discount("discount", discount)
    constants = policy_constants(n, n_actions, parameterization, temperature, source)
    return _smoothness(constants, gamma, 1.0 / (1.0 - gamma), _checked_reward_bound(reward_bound))


def _smoothness(
    constants: tuple[float, float], gamma: float, reach: float, reward_bound: float
) -> float:
    """Proposition 3 with C1 and C2, and at most ``reach`` discounted steps."""
    first, second = constants
    return reward_bound * (second * reach**2 + 2.0 * gamma * first**2 * reach**3)


@checked
def step_bound(
    problem: IncentiveProblem,
    parameterization: Parameterization,
    *,
    payment_bound: float | None = None,
    cost_smoothness: float | None = None,
) -> float:
    """Largest step xi = 1 / L that the convergence theorem allows (Theorem 1).

    Parameters
    ----------
    problem : IncentiveProblem
        Every discount below 1; or 1 where followers are absorbed whatever they do.
    parameterization : Direct or Softmax
    payment_bound : float, optional
        Largest payment that the run will make; by default the bounds of the problem's payments.
    cost_smoothness : float, optional
        Lipschitz constant of the gradient of C; by default 0 for a linear cost and twice the
        largest curvature for a quadratic one; needed for others.

    Returns
    -------
    float
        1 / L, where the gradients of f and of g = sum_i V_i in (x, theta) are L-Lipschitz.

    Notes
    -----
    L is the larger of two constants. That of f is the larger of ``leader_smoothness`` and w times
    the one of C. That of g covers theta, H = max_i ``leader_smoothness`` of follower i alone, and
    the mixed derivatives in x and theta, at most c_i = C1 / (1 - gamma_i)^2 for follower i, the
    first derivative of a value with rewards in [-1, 1]. V_i is linear in x_i, so the constant is
    the norm of [[H, c], [c, 0]], with c = max_i c_i, or |(c_i)_i| if followers share payments. As
    in the paper, V_i* is left out: its gradient jumps where follower i is indifferent.

    The bound is safe, and far below steps that work: it grows like (1 - gamma)^-3. At discount 1
    the most steps T_i that follower i can take until it is absorbed stand for 1 / (1 - gamma_i),
    and for the leader their sum, within which all are absorbed on average.

    Raises
    ------
    InputError
        If a discount is 1 and a follower can stay for ever out of its absorbing states, where no
        bound exists; if there are types of followers with counts above 1; if payments have no upper
        bound and none is given (the paper's Assumption 3); or if the cost is neither linear nor
        quadratic and ``cost_smoothness`` is missing.
    """
    problem.refuse_types("a step bound")
    n, _, actions = problem.followers.shape
    if isinstance(parameterization, Softmax):
        kind, tau = "softmax", parameterization.temperature
    else:
        kind, tau = "direct", 1.0
    gamma, reach = problem.leader_discount, 0.0
    for i in range(n):
        own = _reach(problem, i, gamma, "leader_discount")
        reach = reach + own if gamma == 1.0 else own
    together = policy_constants(n, actions, kind, tau)
    leader = _smoothness(together, gamma, reach, problem.leader.magnitude())
    bounds = _follower_reward_bounds(problem, payment_bound)
    alone = policy_constants(1, actions, kind, tau)
    curvature, mixed = [], []
    for i, mdp in enumerate(problem.followers):
        reach = _reach(problem, i, mdp.discount, f"discount of follower {i}")
        curvature.append(_smoothness(alone, mdp.discount, reach, bounds[i]))
        mixed.append(alone[0] * reach**2)
    h = max(curvature)
    c = float(np.linalg.norm(mixed)) if problem.payments.shared else max(mixed)
    followers = 0.5 * (h + float(np.hypot(h, 2.0 * c)))
    cost = problem.cost_weight * _cost_smoothness(problem, cost_smoothness)
    return 1.0 / max(leader, followers, cost)


def _reach(problem: IncentiveProblem, follower: int, discount: float, argument: str) -> float:
    """Most steps, discounted, that a follower can take until it is absorbed."""
    if discount < 1.0:
        return 1.0 / (1.0 - discount)
    mdp = problem.followers[follower]
    walking = np.where(mdp.transition.absorbing, 0.0, 1.0)
    try:
        longest = best_response(mdp.replace(reward=walking, discount=1.0))
    except InputError:
        raise invalid(
            argument,
            "a number in [0, 1), or followers that are absorbed whatever they do",
            f"1, where the smoothness bound does not exist: follower {follower} can stay for ever "
            "out of its absorbing states",
            None,
            "Use a smaller discount, or an adaptive step, which needs no bound.",
        ) from None
    # At least one, for a follower that is absorbed already.
    return max(1.0, float(longest.values.max()))


def _follower_reward_bounds(problem: IncentiveProblem, payment_bound: float | None) -> list[float]:
    """Bound |R_i + x_i| of each follower, over all payments within their bounds."""
    upper = problem.payments.upper
    if payment_bound is not None:
        if not payment_bound >= 0:
            raise invalid("payment_bound", "a number >= 0", payment_bound)
        upper = np.minimum(upper, payment_bound)
    if not np.isfinite(upper).all():
        k = int(np.argmax(~np.isfinite(upper)))
        raise invalid(
            "payment_bound",
            "bounded payments: without a bound L is infinite (Assumption 3)",
            "none",
            f"payment {k} ({problem.payments.describe(k)})",
            "Pass payment_bound, or give the problem's payments an upper bound or a budget.",
        )
    largest = np.maximum(np.abs(problem.followers.rewards), np.abs(problem.rewards(upper)))
    return [float(each) for each in largest.max(axis=(1, 2))]


def _cost_smoothness(problem: IncentiveProblem, value: float | None) -> float:
    if value is None:
        if isinstance(problem.cost, LinearCost):
            return 0.0
        if isinstance(problem.cost, QuadraticCost):
            return 2.0 * float(problem.cost.curvature.max())
        raise invalid(
            "cost_smoothness",
            "the Lipschitz constant of the gradient of a cost that is not linear or quadratic",
            "none",
        )
    if not (value >= 0 and np.isfinite(value)):
        raise invalid("cost_smoothness", "a finite number >= 0", value)
    return float(value)


def _checked_discount(argument: str, discount: float) -> float:
    if discount == 1.0:
        raise invalid(
            argument,
            "a number in [0, 1)",
            "1, where the smoothness bound does not exist: it grows like (1 - discount)^-3",
            None,
            "Use a smaller discount, or an adaptive step, which needs no bound.",
        )
    if not 0.0 <= discount < 1.0:
        raise invalid(argument, "a number in [0, 1)", discount)
    return float(discount)


def _checked_count(argument: str, value: int) -> int:
    if int(value) != value or value < 1:
        raise invalid(argument, "an integer >= 1", value)
    return int(value)


def _checked_temperature(temperature: float) -> float:
    if not temperature > 0:
        raise invalid("temperature", "a number > 0", temperature)
    if not 1.0 / LARGEST <= temperature <= LARGEST:
        raise invalid("temperature", f"a number in {1.0 / LARGEST:g}..{LARGEST:g}", temperature)
    return float(temperature)


def _checked_reward_bound(reward_bound: float) -> float:
    if not (reward_bound >= 0 and np.isfinite(reward_bound)):
        raise invalid("reward_bound", "a finite number >= 0", reward_bound)
    if reward_bound > LARGEST:
        raise invalid("reward_bound", f"a number of at most {LARGEST:g}", reward_bound)
    return float(reward_bound)
