"""How policies are parameterized: direct (theta = pi) and softmax (theta real)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastincentive.errors import invalid
from fastincentive.followers import Followers
from fastincentive.kernels import simplex
from fastincentive.mdp import FloatArray

__all__ = ["Direct", "Parameterization", "Softmax"]


@dataclass(frozen=True)
class Direct:
    """theta(s, a) = pi(a|s), each row on the simplex over the available actions."""

    def policies(self, theta: FloatArray, followers: Followers) -> FloatArray:
        """Policies (n, S, A) at theta: theta itself."""
        return theta

    def parameters(self, policies: FloatArray, followers: Followers) -> FloatArray:
        """Theta that gives these policies."""
        return policies.copy()

    def gradient(self, gradient: FloatArray, policies: FloatArray) -> FloatArray:
        """Gradient in theta from the gradient in the policy entries: the same."""
        return gradient

    def project(self, theta: FloatArray, followers: Followers) -> FloatArray:
        """Projection on the product of simplices."""
        out = np.empty_like(theta)
        packed = followers.packed
        simplex.project_rows(theta, packed.available, packed.model, out)
        return out


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
        if not self.temperature > 0:
            raise invalid("temperature", "a number > 0", self.temperature)
        if not 0 < self.floor < 0.1:
            raise invalid("floor", "a number in (0, 0.1)", self.floor)

    def policies(self, theta: FloatArray, followers: Followers) -> FloatArray:
        """Policies (n, S, A) at theta."""
        out = np.empty_like(theta)
        packed = followers.packed
        simplex.softmax_policies(theta, self.temperature, packed.available, packed.model, out)
        return out

    def parameters(self, policies: FloatArray, followers: Followers) -> FloatArray:
        """Theta that gives these policies, raised to the floor; rows have maximum 0."""
        available = followers.available
        raised = np.where(available, np.maximum(policies, self.floor), 1.0)
        theta = self.temperature * np.log(raised)
        theta -= np.max(np.where(available, theta, -np.inf), axis=2, keepdims=True)
        return np.where(available, theta, 0.0)

    def gradient(self, gradient: FloatArray, policies: FloatArray) -> FloatArray:
        """Gradient in theta from the gradient in the policy entries (eq. 16)."""
        out = np.empty_like(gradient)
        simplex.softmax_gradients(gradient, policies, self.temperature, out)
        return out

    def project(self, theta: FloatArray, followers: Followers) -> FloatArray:
        """Theta itself: softmax parameters are unconstrained."""
        return theta


Parameterization = Direct | Softmax
