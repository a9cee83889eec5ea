"""How policies are parameterized: direct (theta = pi) and softmax (theta real)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import (
    LARGEST,
    FloatArray,
    as_floats,
    as_given,
    as_numbers,
    check_shape,
    looks_finite,
)
from fastincentive._checks import check_fields, number
from fastincentive.errors import invalid, shown
from fastincentive.followers.followers import Followers
from fastincentive.kernels import simplex

__all__ = ["Direct", "Parameterization", "Softmax"]

#: Softmax parameters stay within this many temperatures of the row's largest.
LOGIT_RANGE = 30.0
#: Larger numbers add up to none.
MOST = 1e300


@dataclass(frozen=True)
class Direct:
    """theta(s, a) = pi(a|s), each row on the simplex over the available actions."""

    def policies(self, theta: FloatArray, followers: Followers) -> FloatArray:
        """Policies (n, S, A) at theta: theta itself."""
        return _given("theta", theta, followers)

    def parameters(self, policies: FloatArray, followers: Followers) -> FloatArray:
        """Theta that gives these policies."""
        return _given("policies", policies, followers).copy()

    def gradient(self, gradient: FloatArray, policies: FloatArray) -> FloatArray:
        """Gradient in theta from the gradient in the policy entries: the same."""
        return _alike(gradient, policies)[0]

    def project(self, theta: FloatArray, followers: Followers) -> FloatArray:
        """Projection on the product of simplices."""
        theta = _given("theta", theta, followers)
        out = np.empty_like(theta)
        packed = followers.packed
        simplex.project_rows(theta, packed.available, packed.model, out)
        return out

    def step(
        self, policies: FloatArray, slope: FloatArray, step: float, followers: Followers
    ) -> FloatArray:
        """Policies after a natural-gradient step: each row moves along ``slope`` (n, S, A)."""
        policies, slope = _given("policies", policies, followers), _given("slope", slope, followers)
        return self.project(policies + number("step", step) * slope, followers)


@dataclass(frozen=True)
class Softmax:
    """pi(a|s) = exp(theta(s, a) / tau) / sum over the available actions.

    Parameters
    ----------
    temperature : float
        tau > 0, in units of reward.
    floor : float
        Smallest probability given to an available action when policies are turned into theta:
        a softmax policy is never deterministic.
    """

    temperature: float = 0.05
    floor: float = 1e-6

    def __post_init__(self) -> None:
        """Check the settings."""
        check_fields(self)
        if not self.temperature > 0:
            raise invalid("temperature", "a number > 0", self.temperature)
        if not 0 < self.floor < 0.1:
            raise invalid("floor", "a number in (0, 0.1)", self.floor)

    def policies(self, theta: FloatArray, followers: Followers) -> FloatArray:
        """Policies (n, S, A) at theta."""
        theta = _given("theta", theta, followers)
        out = np.empty_like(theta)
        packed = followers.packed
        simplex.softmax_policies(theta, self.temperature, packed.available, packed.model, out)
        return out

    def parameters(self, policies: FloatArray, followers: Followers) -> FloatArray:
        """Theta that gives these policies, raised to the floor; rows have maximum 0."""
        policies = _given("policies", policies, followers)
        available = followers.available
        return self.from_logits(np.log(np.maximum(policies, self.floor)), available)

    def gradient(self, gradient: FloatArray, policies: FloatArray) -> FloatArray:
        """Gradient in theta from the gradient in the policy entries (eq. 16)."""
        gradient, policies = _alike(gradient, policies)
        out = np.empty_like(gradient)
        simplex.softmax_gradients(gradient, policies, self.temperature, out)
        if np.isnan(out).any():
            raise invalid("gradient", "finite numbers wherever a policy is not 0", "-inf")
        return out

    def project(self, theta: FloatArray, followers: Followers) -> FloatArray:
        """Theta itself: softmax parameters are unconstrained."""
        return _given("theta", theta, followers)

    def step(
        self, policies: FloatArray, slope: FloatArray, step: float, followers: Followers
    ) -> FloatArray:
        """Policies after a natural-gradient step: theta / tau moves along ``slope`` (n, S, A)."""
        policies, slope = _given("policies", policies, followers), _given("slope", slope, followers)
        top = np.where(policies > 0.0, slope, -np.inf).max(axis=2, keepdims=True)
        weight = policies * np.exp(number("step", step) * np.minimum(slope - top, 0.0))
        total = weight.sum(axis=2, keepdims=True)
        if not (total > 0.0).all():
            raise invalid("policies", "rows with a sum above 0", "none")
        return np.asarray(weight / total)

    def from_logits(self, logits: FloatArray, available: NDArray[np.bool_]) -> FloatArray:
        """Theta (n, S, A) = tau logits, rows with maximum 0 and at most LOGIT_RANGE below."""
        logits = as_floats("logits", logits)
        allowed = as_numbers("available", available)
        check_shape("available", allowed, logits.shape, "as the logits")
        if (
            logits.ndim != 3
            or allowed.dtype != np.bool_
            or not (~allowed | (logits < np.inf)).all()
        ):
            raise invalid("logits", "numbers below infinity (n, S, A), and bools", logits.shape)
        shifted = np.where(allowed, logits, -np.inf)
        shifted -= shifted.max(axis=2, keepdims=True)
        return np.where(allowed, self.temperature * np.maximum(shifted, -LOGIT_RANGE), 0.0)


def _given(argument: str, value: FloatArray, followers: Followers) -> FloatArray:
    """Return finite numbers (n, S, A) as kernels take them."""
    if not isinstance(followers, Followers):
        raise invalid("followers", "Followers", shown(followers))
    return _finite(argument, as_given(argument, value, followers.shape, "(n, S, A)"))


def _finite(argument: str, value: FloatArray, also: float = 0.0, most: float = MOST) -> FloatArray:
    """Raise unless numbers are finite; where actions are unavailable they may ``also`` be -inf."""
    if not looks_finite(value):
        bad = ~(np.abs(value) <= most) & (value != also)
        if bad.any():
            raise invalid(argument, f"numbers of at most {most:g}", value[bad][0])
    return value


def _alike(gradient: FloatArray, policies: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return two arrays (n, S, A) of one shape as kernels take them."""
    if type(policies) is not np.ndarray:
        policies = as_floats("policies", policies)
    if policies.ndim != 3 or not policies.size:
        raise invalid("policies", "shape (n, S, A)", policies.shape)
    slope = as_given("gradient", gradient, policies.shape, "as the policies")
    return (
        _finite("gradient", slope, -np.inf, LARGEST),
        _finite("policies", as_given("policies", policies, policies.shape), 0.0, LARGEST),
    )


Parameterization = Direct | Softmax
