"""One follower's answers: policy evaluation, occupancy measure and best responses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fastincentive._arrays import FloatArray
from fastincentive._checks import checked
from fastincentive.errors import invalid
from fastincentive.followers.argument_checks import check_tolerance
from fastincentive.followers.followers import FEW_STATES, Followers
from fastincentive.followers.mdp import TabularMDP, as_mdp
from fastincentive.followers.policies import deterministic_policies, uniform_over
from fastincentive.kernels import soft_bellman
from fastincentive.kernels.lone_response import lone_response

__all__ = [
    "BestResponse",
    "best_response",
    "evaluate_policy",
    "occupancy_measure",
    "soft_best_response",
]


@dataclass(frozen=True)
class BestResponse:
    """An optimal policy of one follower and what certifies it.

    Attributes
    ----------
    policy : array (S, A)
    values : array (S,)
        Optimal values V*.
    q_values : array (S, A)
        Q*, -inf for unavailable actions.
    residual : float
        Sup norm of the Bellman residual of ``values``.
    iterations : int
    """

    policy: FloatArray
    values: FloatArray
    q_values: FloatArray
    residual: float
    iterations: int


@checked
def evaluate_policy(
    mdp: TabularMDP, policy: ArrayLike, route: str = "auto", tolerance: float = 0.0
) -> tuple[FloatArray, FloatArray]:
    """Values V (S,) and Q-values (S, A) of a policy (S, A); Q is -inf at unavailable actions.

    Parameters
    ----------
    mdp : TabularMDP
    policy : array (S, A)
    route : "auto", "sweeps" or "direct"
        How more than 400 states are evaluated: by Gauss-Seidel sweeps, by sparse factors, or by
        whichever is expected to be quicker. Fewer states have dense factors.
    tolerance : float
        Bound on the Bellman residual of sweeps, in units of reward; 0 means close to rounding.

    Raises
    ------
    InputError
        If the policy has the wrong shape, its rows are not distributions, or the route is unknown.
    ImproperPolicyError
        At discount 1, if the policy is never absorbed from some state, nor stays for ever where
        nothing is earned.
    """
    followers = Followers([as_mdp("mdp", mdp)])
    checked = followers.check_policies(np.asarray(policy, float)[None], "policy")
    result = followers.evaluate(followers.rewards, checked, route, tolerance, checked=True)
    return result.values[0], result.q_values[0]


@checked
def occupancy_measure(mdp: TabularMDP, policy: ArrayLike, normalized: bool = False) -> FloatArray:
    """Discounted state-action visits sum_t gamma^t Pr(s, a) (S, A), from ``mdp.initial``.

    Parameters
    ----------
    mdp : TabularMDP
    policy : array (S, A)
    normalized : bool
        Multiply by 1 - gamma: the paper's d, a distribution; not defined at discount 1.

    Notes
    -----
    At discount 1 the states visited for ever (absorbing, or those where a follower stays and
    earns nothing) are left at 0. The unnormalised
    occupancy is the gradient of the value in the reward (the paper's Lemma 1 without its factor).
    """
    followers = Followers([as_mdp("mdp", mdp)])
    checked = followers.check_policies(np.asarray(policy, float)[None], "policy")
    if normalized and mdp.discount == 1.0:
        raise invalid("normalized", "False at discount 1 (1 - gamma is 0)", True)
    visits = followers.evaluate(followers.rewards, checked, checked=True).visits
    occupancy = visits[0][:, None] * checked[0]
    return occupancy * (1.0 - mdp.discount) if normalized else occupancy


def best_response(mdp: TabularMDP, tolerance: float = 0.0) -> BestResponse:
    """Optimal deterministic policy of one follower, the first best action where several tie.

    Parameters
    ----------
    mdp : TabularMDP
    tolerance : float
        Bound on the sup norm of the Bellman residual, in units of reward, for more than 400 states;
        0 means close to rounding. The residual reached is part of the answer.

    Raises
    ------
    InputError
        If an argument is not as described, or at discount 1 the best total reward is unbounded.
    """
    tolerance = check_tolerance(tolerance)
    few = as_mdp("mdp", mdp).n_states <= FEW_STATES
    if few and mdp.discount < 1.0 and not mdp.transition.ragged:
        return _lone_response(mdp)
    followers = Followers([mdp])
    result = followers.best_responses(followers.rewards, tolerance=tolerance)
    return BestResponse(
        policy=followers.deterministic_policies(result.actions[0]),
        values=result.values[0],
        q_values=result.q_values[0],
        residual=float(result.residual[0]),
        iterations=int(result.iterations[0]),
    )


def _lone_response(mdp: TabularMDP) -> BestResponse:
    """As ``Followers.best_responses`` without its arrays over followers, which take longer."""
    states, n_actions = mdp.reward.shape
    actions, values = np.empty((1, states), np.int64), np.empty((1, states))
    q_values = np.empty((1, states, n_actions))
    model = mdp.transition
    residual, iterations = lone_response(
        model.row_start,
        model.successor,
        model.probability,
        model.available,
        mdp.reward,
        mdp.discount,
        actions,
        values,
        q_values,
    )
    policy = deterministic_policies(actions[0], n_actions)
    return BestResponse(policy, values[0], q_values[0], float(residual), int(iterations))


@checked
def soft_best_response(mdp: TabularMDP, temperature: float) -> BestResponse:
    """Entropy-regularised best response: V = tau log sum_a exp(Q(., a) / tau).

    The entropy of the policy counts in every state but the sinks (states that no action leaves)
    and, at discount 1, the other closed classes.

    Parameters
    ----------
    mdp : TabularMDP
    temperature : float
        tau > 0, in units of reward.

    Raises
    ------
    InputError
        If the temperature is not positive, or the regularised total reward is unbounded.
    """
    if not temperature > 0:
        raise invalid("temperature", "a number > 0", temperature)
    followers = Followers([as_mdp("mdp", mdp)])
    start = uniform_policies(followers)
    policies, values, q_values, residual, iterations = soft_responses(
        followers, followers.rewards, temperature, start
    )
    return BestResponse(policies[0], values[0], q_values[0], float(residual[0]), int(iterations[0]))


def uniform_policies(followers: Followers) -> FloatArray:
    """Return the uniform choice among the available actions (n, S, A)."""
    return uniform_over(followers.available)


def soft_responses(
    followers: Followers, rewards: FloatArray, temperature: float, warm: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, np.ndarray]:
    """Entropy-regularised responses of all followers: policies, V, Q, residual, iterations."""
    n, states, _ = followers.shape
    policies = warm.copy()
    values = np.empty((n, states))
    q_values = np.empty(followers.shape)
    residual = np.empty(n)
    iterations = np.empty(n, np.int64)
    soft_bellman.soft_responses(
        followers.packed, rewards, temperature, policies, values, q_values, residual, iterations
    )
    if iterations.min() < 0 or not np.isfinite(values).all():
        raise invalid(
            "temperature",
            "one for which the regularised total reward is bounded",
            temperature,
            f"follower {int(np.argmax(iterations < 0))}",
            "At discount 1 a smaller temperature or a step cost is needed.",
        )
    return policies, values, q_values, residual, iterations
