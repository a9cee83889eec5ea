"""The Polyak-Lojasiewicz inequality of Corollary 3: its constant at a point."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastincentive._arrays import FloatArray
from fastincentive._checks import checked
from fastincentive.errors import invalid
from fastincentive.followers.followers import PolicyValues, ResponseValues
from fastincentive.followers.parameterization import Direct, Parameterization, Softmax
from fastincentive.problem.problem import IncentiveProblem

__all__ = ["pl_constant"]

#: Advantages and gaps below this share of the largest value are rounding.
ROUNDING = 1e-13


@checked
def pl_constant(
    problem: IncentiveProblem,
    payments: ArrayLike,
    policies: ArrayLike,
    parameterization: Parameterization | None = None,
    source: str = "derived",
) -> float:
    """Constant kappa of the PL inequality |grad_theta g|^2 >= kappa (g* - g) at a point (Cor. 3).

    Parameters
    ----------
    problem : IncentiveProblem
    payments : float or array (k,)
    policies : array (n, S, A)
    parameterization : Direct or Softmax
        In whose parameters the gradient is taken; by default ``Direct()``.
    source : "derived" or "paper"
        The constant derived below, or min_i beta_i^2 / M_i as in Appendix F.

    Returns
    -------
    float
        kappa >= 0; inf where all policies are best responses, and both sides are 0.

    Notes
    -----
    g = sum_i V_i, and g* - g = -q. Let a* be a best response of follower i, visits* its occupancy,
    and A the advantages of its own policy. By the performance difference lemma the gap is at most
    the sum of visits*(s) A(s, a*) over states where A(s, a*) > 0. There the gradient's row is at
    least visits(s) A(s, a*) / length(s), with length(s) = |e_a* - pi(s)| for direct policies (of
    the gradient projected on the tangent cone, hence of the raw one too) and tau / pi(a*|s) for
    softmax. So, by Cauchy and Schwarz,

        kappa = (g* - g) / sum_{i,s} (visits*(s) length(s) / visits(s))^2.

    It is 0 where a follower never comes to a state that it would have to change in.

    The paper's constant has beta_i, the largest entry of the raw gradient, and M_i = sum_s
    visits*(s) max_a A(s, a), a bound on the gap (eq. 17 prints visits, with which it is none). For
    direct policies it says nothing of the algorithm: the raw gradient does not vanish at a best
    response.

    Corollary 3 asks for one kappa for all (x, theta). There is none: the ratio tends to 0 where
    payments all but make a follower indifferent, where it hardly visits what it should, and, under
    softmax, at every best response. Hence a constant for a point.

    Raises
    ------
    InputError
        If an argument is not as described.
    ImproperPolicyError
        If a policy is never absorbed at discount 1.

    Examples
    --------
    >>> import numpy as np
    >>> import fastincentive as fi
    >>> from fastincentive.theory import pl_constant
    >>> problem = fi.models.example1()
    >>> even = np.full((2, 4, 2), 0.5)
    >>> round(pl_constant(problem, [0.5, 1.0], even), 6)
    0.75
    """
    if source not in ("derived", "paper"):
        raise invalid("source", '"derived" or "paper"', repr(source))
    followers = problem.followers
    pi = followers.check_policies(policies)
    rewards = problem.rewards(problem.payments.check(payments))
    shape = Direct() if parameterization is None else parameterization
    own = followers.evaluate(rewards, pi, checked=True)
    best = followers.best_responses(rewards)
    reply = followers.deterministic_policies(best.actions)
    wanted = followers.evaluate(rewards, reply, checked=True).visits
    # Occupancies that the gap is summed over, advantages of all actions, -inf at unavailable ones.
    advantages = np.where(followers.available, own.q_values, -np.inf) - own.values[:, :, None]
    gaps = followers.start_values(best.values) - followers.start_values(own.values)
    least = ROUNDING * (1.0 + np.abs(best.values).max(axis=1))
    behind = gaps > least
    if not behind.any():
        return float(np.inf)
    if source == "paper":
        q_values = np.where(followers.available, own.q_values, 0.0)
        slope = shape.gradient(own.visits[:, :, None] * q_values, pi)
        return _printed(slope, (wanted * advantages.max(axis=2)).sum(axis=1), behind)
    squares = _mismatch(shape, pi, own, best, wanted, advantages, least)
    return float(gaps[behind].sum() / squares[behind].sum())


def _printed(slope: FloatArray, most: FloatArray, behind: FloatArray) -> float:
    """Return min beta^2 / M over the followers whose policies are not best responses."""
    largest = np.abs(slope).max(axis=(1, 2))
    return float((largest[behind] ** 2 / most[behind]).min())


def _mismatch(
    shape: Parameterization,
    policies: FloatArray,
    own: PolicyValues,
    best: ResponseValues,
    wanted: FloatArray,
    advantages: FloatArray,
    least: FloatArray,
) -> FloatArray:
    """Sum (visits* length / visits)^2 of each follower (n,), over states with something to gain."""
    index = best.actions[:, :, None]
    gain = np.take_along_axis(advantages, index, axis=2)[:, :, 0]
    chance = np.take_along_axis(policies, index, axis=2)[:, :, 0]
    counted = (gain > least[:, None]) & (wanted > 0.0)
    ratio = np.zeros(counted.shape)
    with np.errstate(divide="ignore"):
        if isinstance(shape, Softmax):
            length = shape.temperature / chance[counted]
        else:
            others = (policies**2).sum(axis=2) - chance**2
            length = np.sqrt(others + (1.0 - chance) ** 2)[counted]
        ratio[counted] = wanted[counted] * length / own.visits[counted]
    squares: FloatArray = (ratio**2).sum(axis=1)
    return squares
