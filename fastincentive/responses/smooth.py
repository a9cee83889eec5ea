"""Three models of how followers answer payments, and derivatives of the two that are smooth.

``greedy`` followers take exact best responses, ``boltzmann`` ones softmax(Q*/tau), the paper's
theta* = Q* (Example 1), and ``soft`` ones maximise their reward with tau times their policy's
entropy. Responses of the last two are smooth in the payments, so the leader's objective is a
function of the payments alone; its derivative, the hypergradient, takes one adjoint solve for each
follower.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastincentive._arrays import FloatArray
from fastincentive._checks import checked
from fastincentive.errors import RoundingWarning, invalid
from fastincentive.followers.followers import Followers
from fastincentive.followers.single import soft_responses, uniform_policies
from fastincentive.kernels import adjoint, soft_bellman
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.ties import break_ties

__all__ = [
    "RESPONSES",
    "FollowerResponses",
    "TotalDerivative",
    "answer",
    "check_model",
    "differentiate",
    "follower_responses",
    "hypergradient",
    "warn_of_rounding",
]

RESPONSES = ("greedy", "boltzmann", "soft")
#: Policies whose rounding is a larger share of their probabilities are warned of.
MOST_ROUNDING = 1e-3


@dataclass(frozen=True)
class FollowerResponses:
    """How followers answer payments.

    Attributes
    ----------
    policies : array (n, S, A)
    values : array (n, S)
        V_i of these policies, payments included, entropy not: what stands for V_i* in q when the
        model is used in Algorithm 1.
    start_values : array (n,)
        The same from the followers' starts.
    model_values, q_values : array (n, S), (n, S, A)
        What the policies are made of: V* and Q* (greedy, boltzmann), or the entropy-regularised
        values V = tau log sum_a exp(Q / tau) and their Q. Q is -inf at unavailable actions.
    occupancy : array (n, S, A)
        Unnormalised occupancy measures: the derivatives of V_i by x_i at fixed policies.
    """

    policies: FloatArray
    values: FloatArray
    start_values: FloatArray
    model_values: FloatArray
    q_values: FloatArray
    occupancy: FloatArray


@dataclass(frozen=True)
class TotalDerivative:
    """The leader's objective at payments, followers answering smoothly, and its derivative.

    Attributes
    ----------
    objective, leader_value, cost : float
        F(x) = V(pi(x)) - w C(x, pi(x)), and its parts.
    gradient : array (k,)
        dF/dx, the total derivative.
    policies : array (n, S, A)
        pi(x).
    """

    objective: float
    leader_value: float
    cost: float
    gradient: FloatArray
    policies: FloatArray


@dataclass(frozen=True)
class Answer:
    """Responses and what their derivatives need."""

    policies: FloatArray  # (n, S, A)
    values: FloatArray  # (n, S)
    q_values: FloatArray  # (n, S, A)
    carried: FloatArray  # (n, S, A), the policies that dV/dr counts with
    ended: NDArray[np.bool_]  # (n, S), states whose response does not move


def check_model(response: str, temperature: float | None, smooth: bool = False) -> None:
    """Raise unless this is a model of a response, with a temperature where it has one."""
    allowed = RESPONSES[1:] if smooth else RESPONSES
    if response not in allowed:
        raise invalid("response", f"one of {allowed}", repr(response))
    if response != "greedy" and not (
        temperature is not None and temperature > 0 and np.isfinite(temperature)
    ):
        raise invalid("temperature", "a finite number > 0, in units of reward", temperature)


@checked
def follower_responses(
    problem: IncentiveProblem,
    payments: ArrayLike,
    response: str = "greedy",
    temperature: float | None = None,
) -> FollowerResponses:
    """Compute how followers answer payments under one of three models.

    Parameters
    ----------
    problem : IncentiveProblem
    payments : float or array (k,)
    response : "greedy", "boltzmann" or "soft"
        Exact best responses, ties broken for the leader; softmax(Q*/tau); or the maximum of reward
        plus tau times entropy. The entropy does not count in sinks, nor at discount 1 in other
        closed classes.
    temperature : float, optional
        tau > 0, in units of reward; not for "greedy".

    Returns
    -------
    FollowerResponses

    Raises
    ------
    InputError
        If an argument is not as described, or a total reward at discount 1 is unbounded (with
        entropy: the temperature is too high).
    ImproperPolicyError
        If a Boltzmann policy is never absorbed at discount 1.

    Notes
    -----
    A Boltzmann response is worth less than V*: a policy may do better than it, and q > 0.
    """
    check_model(response, temperature)
    x = problem.payments.check_bounds(payments)
    rewards, followers = problem.rewards(x), problem.followers
    if response == "greedy":
        best = followers.best_responses(rewards)
        policies, values, q_values = break_ties(problem, x, 1.0), best.values, best.q_values
    else:
        assert temperature is not None  # for the type checker
        found = answer(followers, rewards, response, temperature)
        policies, values, q_values = found.policies, found.values, found.q_values
    evaluated = followers.evaluate(rewards, policies, checked=True)
    return FollowerResponses(
        policies=policies,
        values=evaluated.values,
        start_values=followers.start_values(evaluated.values),
        model_values=values,
        q_values=q_values,
        occupancy=evaluated.visits[:, :, None] * policies,
    )


@checked
def hypergradient(
    problem: IncentiveProblem,
    payments: ArrayLike,
    response: str = "soft",
    temperature: float = 0.1,
) -> TotalDerivative:
    """Differentiate V(pi(x)) - w C(x, pi(x)) by the payments, followers answering smoothly.

    Parameters
    ----------
    problem : IncentiveProblem
    payments : float or array (k,)
    response : "soft" or "boltzmann"
        As for ``follower_responses``.
    temperature : float
        tau > 0, in units of reward.

    Returns
    -------
    TotalDerivative

    Raises
    ------
    InputError
        If an argument is not as described, or a total reward at discount 1 is unbounded.

    Warns
    -----
    RoundingWarning
        If the temperature is so small beside the followers' values that their rounding shows.

    Notes
    -----
    With pi = softmax(Q/tau) and G = df/dpi, let g(s,a) = pi(a|s) (G(s,a) - sum_b pi(b|s) G(s,b)) /
    tau. Then dF/dr(s,a) = g(s,a) + mu(a|s) y(s), where (I - gamma P^mu)' y = gamma sum_{s,a} g(s,a)
    P(.|s,a), and mu is pi for soft responses and the greedy policy for Boltzmann ones. These are
    the implicit function theorem's terms in the order of reverse accumulation: no Hessian appears.
    A Boltzmann response has kinks where the greedy policy changes; there one side is taken.
    """
    check_model(response, temperature, smooth=True)
    x = problem.payments.check_bounds(payments)
    found = answer(problem.followers, problem.rewards(x), response, temperature)
    warn_of_rounding(found, temperature)
    return differentiate(problem, x, found, temperature)


def answer(
    followers: Followers,
    rewards: FloatArray,
    response: str,
    temperature: float,
    warm: FloatArray | None = None,
) -> Answer:
    """Compute smooth responses to rewards (n, S, A); ``warm`` are policies to start from."""
    packed = followers.packed
    gone = packed.absorbing[packed.model] & (packed.discount == 1.0)[:, None]
    if response == "soft":
        start = uniform_policies(followers) if warm is None else warm
        policies, values, q_values, *_ = soft_responses(followers, rewards, temperature, start)
        return Answer(policies, values, q_values, policies, packed.sink[packed.model] | gone)
    best = followers.best_responses(rewards)
    policies = np.empty(followers.shape)
    soft_bellman.boltzmann_policies(packed, best.q_values, temperature, policies)
    greedy = followers.deterministic_policies(best.actions)
    still = np.zeros(gone.shape, bool)
    return Answer(policies, best.values, best.q_values, greedy, still)


def differentiate(
    problem: IncentiveProblem, payments: FloatArray, found: Answer, temperature: float
) -> TotalDerivative:
    """Objective and hypergradient where the responses are known."""
    policies = found.policies
    leader = problem.leader_pass(policies)
    assert leader.gradient is not None  # for the type checker
    cost = problem.cost_pass(payments, policies)
    slopes = leader.gradient
    if cost.policies is not None and problem.cost_weight:
        slopes = slopes - problem.cost_weight * cost.policies
    gradient = pull_back(problem, found, slopes, temperature)
    gradient -= problem.cost_weight * cost.payments
    objective = problem.net(leader.value, cost.value)
    return TotalDerivative(objective, leader.value, cost.value, gradient, policies)


def warn_of_rounding(found: Answer, temperature: float) -> None:
    """Warn where exp(Q / tau) is made of the digits of Q that rounding has taken."""
    scale = float(np.abs(found.values).max())
    share = np.finfo(float).eps * scale / temperature
    if share > MOST_ROUNDING:
        warnings.warn(
            f"temperature: {temperature:g} is so small beside followers' values of {scale:.3g} "
            f"that rounding changes their probabilities by {min(share, 1.0):.0%} and more, and "
            "the hypergradient likewise: with these rewards use one of at least "
            f"{np.finfo(float).eps * scale / MOST_ROUNDING:.1g}",
            RoundingWarning,
            stacklevel=4,
        )


def pull_back(
    problem: IncentiveProblem, found: Answer, slopes: FloatArray, temperature: float
) -> FloatArray:
    """Turn derivatives in the policies (n, S, A) into those in the payments (k,)."""
    followers = problem.followers
    scores = np.empty(followers.shape)
    sources = np.empty(followers.shape[:2])
    adjoint.softmax_adjoint(
        followers.packed, slopes, found.policies, temperature, found.ended, scores, sources
    )
    visits = followers.occupancy_from(sources, found.carried)
    return problem.payments.pull_back(scores + visits[:, :, None] * found.carried)
