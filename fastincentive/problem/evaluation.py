"""Everything about one point of a problem."""

from __future__ import annotations

from dataclasses import dataclass

from fastincentive._arrays import FloatArray

__all__ = ["Evaluation"]


@dataclass(frozen=True)
class Evaluation:
    """Everything about one point (payments, policies).

    Attributes
    ----------
    leader_value : float
        V(pi), the leader's expected discounted reward, without cost.
    cost : float
        C(x), or C(x, pi) of an ``ExpectedSpend``.
    objective : float
        f = leader_value - cost_weight * cost.
    follower_values, best_values, follower_gaps : array (n,)
        V_i(pi_i; x_i), V_i*(x_i), and their difference V_i* - V_i >= 0 (up to rounding).
    feasibility : float
        q = -sum of the gaps of all followers; 0 exactly at best responses.
    horizon : int
        Number of time steps summed for the leader's value; 0 where it was solved for instead, as
        with one follower that has many states.
    truncation : float
        Bound on what the leader's value leaves out beyond the horizon.
    """

    leader_value: float
    cost: float
    objective: float
    follower_values: FloatArray
    best_values: FloatArray
    follower_gaps: FloatArray
    feasibility: float
    horizon: int
    truncation: float
