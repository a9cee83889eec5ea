"""What payments cost the leader: linear, quadratic, any function of them, or what is paid out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastincentive._arrays import LARGEST, FloatArray, as_floats
from fastincentive._checks import checked, number
from fastincentive.errors import invalid
from fastincentive.followers.chains import settled_states
from fastincentive.followers.evaluation import evaluate_packed
from fastincentive.followers.followers import Followers
from fastincentive.followers.transition import TransitionModel
from fastincentive.kernels.packed import TINY_PIVOT, Packed

__all__ = [
    "Cost",
    "CustomCost",
    "ExpectedSpend",
    "LinearCost",
    "Payouts",
    "QuadraticCost",
    "check_cost",
    "expected_payouts",
]

#: Gradients count what is paid for ever at discount 1 for about this many steps.
PATIENCE_STEPS = 1000


class Cost(Protocol):
    """A differentiable cost C of the payments (k,)."""

    def value(self, payments: FloatArray) -> float:
        """C(x)."""
        ...

    def gradient(self, payments: FloatArray) -> FloatArray:
        """dC/dx, shape (k,)."""
        ...


class LinearCost:
    """C(x) = prices . x; by default the plain sum of the payments.

    Parameters
    ----------
    prices : float or array (k,)
        Price of each payment variable, >= 0.

    Raises
    ------
    InputError
        If a price is negative or not finite.
    """

    @checked
    def __init__(self, prices: ArrayLike = 1.0) -> None:
        self.prices = _rates("prices", prices)

    def value(self, payments: FloatArray) -> float:
        """C(x)."""
        return float(np.sum(self.prices * _payments(payments, self.prices)))

    def gradient(self, payments: FloatArray) -> FloatArray:
        """dC/dx, shape (k,)."""
        payments = _payments(payments, self.prices)
        return np.broadcast_to(self.prices, payments.shape).astype(float)


class QuadraticCost:
    """C(x) = sum_k prices_k x_k + curvature_k x_k^2: the more is paid, the dearer the next unit.

    Parameters
    ----------
    prices : float or array (k,)
        Price of each payment variable, >= 0.
    curvature : float or array (k,)
        Half the rate at which the price grows with the payment, >= 0.

    Raises
    ------
    InputError
        If a price or curvature is negative or not finite.
    """

    @checked
    def __init__(self, prices: ArrayLike = 1.0, curvature: ArrayLike = 1.0) -> None:
        self.prices = _rates("prices", prices)
        self.curvature = _rates("curvature", curvature)

    def value(self, payments: FloatArray) -> float:
        """C(x)."""
        payments = _payments(payments, self.prices, self.curvature)
        return float(np.sum((self.prices + self.curvature * payments) * payments))

    def gradient(self, payments: FloatArray) -> FloatArray:
        """dC/dx, shape (k,)."""
        payments = _payments(payments, self.prices, self.curvature)
        slope = self.prices + 2.0 * self.curvature * payments
        return np.broadcast_to(slope, payments.shape).astype(float)


class CustomCost:
    """A differentiable cost from two functions of the payments (k,).

    Parameters
    ----------
    value : callable
        C(x), a number.
    gradient : callable
        dC/dx, shape (k,).
    """

    @checked
    def __init__(
        self,
        value: Callable[[FloatArray], float],
        gradient: Callable[[FloatArray], ArrayLike],
    ) -> None:
        self._value = value
        self._gradient = gradient

    def value(self, payments: FloatArray) -> float:
        """C(x)."""
        return number("the value of a CustomCost", self._value(_payments(payments).copy()))

    def gradient(self, payments: FloatArray) -> FloatArray:
        """dC/dx, shape (k,)."""
        return as_floats("the gradient of a CustomCost", self._gradient(_payments(payments).copy()))


class ExpectedSpend:
    """What is really paid out: C(x, pi) = sum_i sum_t gamma^t E[price x(i, s_t, a_t)].

    gamma is the leader's discount; follower i starts from its own initial distribution and follows
    its policy. Linear in the payments for fixed policies, and one term per follower.

    Parameters
    ----------
    prices : float or array (k,)
        Price of each payment variable, >= 0.

    Notes
    -----
    At a leader's discount of 1, C is infinite where a policy is paid for ever: in a closed class of
    states that it reaches and never leaves, absorbing or not. Gradients then count a finite time
    of it. A class without a payment costs nothing.

    A budget on this cost depends on the policies too, so that the ascent does not keep it by
    projection; ``IncentiveProblem.within_budget`` tells whether a point keeps it.

    Raises
    ------
    InputError
        If a price is negative or not finite.
    """

    @checked
    def __init__(self, prices: ArrayLike = 1.0) -> None:
        self.prices = _rates("prices", prices)


def _payments(payments: FloatArray, *rates: FloatArray) -> FloatArray:
    """Return payments (k,) as floats, as many as there are rates."""
    if type(payments) is not np.ndarray or payments.dtype != float:
        payments = as_floats("payments", payments)
    if np.isnan(payments).any():
        raise invalid("payments", "numbers", "NaN")
    for each in rates:
        if payments.ndim != 1 or (each.ndim and each.shape != payments.shape):
            expected = f"shape {each.shape or '(k,)'}, one for each payment"
            raise invalid("payments", expected, payments.shape)
    return payments


def _rates(argument: str, value: ArrayLike) -> FloatArray:
    rates = as_floats(argument, value)
    if not ((rates >= 0) & (rates <= LARGEST)).all():
        raise invalid(argument, f"numbers >= 0 and at most {LARGEST:g}", rates)
    if rates.ndim > 1:
        raise invalid(argument, "a number or shape (k,)", rates.shape)
    return rates


def check_cost(cost: object, size: int) -> None:
    """Raise if ``cost`` is none, or not one of ``size`` payments.

    Raises
    ------
    InputError
        If methods are missing, or the gradient or the prices have another shape than (size,).
    """
    if isinstance(cost, ExpectedSpend):
        cost = LinearCost(cost.prices)
    if not (hasattr(cost, "value") and hasattr(cost, "gradient")):
        raise invalid(
            "cost", "an object with value(payments) and gradient(payments)", type(cost).__name__
        )
    try:
        slope = str(np.shape(cost.gradient(np.zeros(size))))
    except ValueError as error:
        slope = str(error)
    if slope != f"({size},)":
        raise invalid("cost", f"a gradient of shape ({size},), one per payment", slope)


class Payouts(NamedTuple):
    """What ``expected_payouts`` returns."""

    values: FloatArray  # (n,) expected total per follower, maybe inf
    visits: FloatArray  # (n, S) unnormalised state occupancies
    q_values: FloatArray  # (n, S, A) expected total from a state and action, -inf if unavailable


def expected_payouts(
    followers: Followers,
    rates: FloatArray,
    payable: NDArray[np.bool_],
    policies: FloatArray,
    discount: float,
) -> Payouts:
    """Compute the discounted payouts of policies (n, S, A) at ``rates`` >= 0 (n, S, A) a visit.

    Parameters
    ----------
    followers : Followers
        Their own discounts play no part.
    rates, policies : array (n, S, A)
    payable : bool array (n, S, A)
        Where the rate may be positive.
    discount : float in [0, 1]
        At 1 the total of a follower that is paid for ever is inf; its visits to the states that it
        never leaves, and its action values, then count ``PATIENCE_STEPS`` steps.
    """
    packed = followers.packed
    if discount < 1.0:
        packed = packed._replace(discount=np.full(followers.n, discount))
        return _evaluate(followers.models, packed, rates, policies)
    # So small a chance to leave counts as none, as it does in the kernels.
    taken = np.where(policies > TINY_PIVOT, policies, 0.0)
    absorbing = packed.absorbing[packed.model]
    settled = settled_states(followers, taken)
    lasting = ((settled != absorbing) | (absorbing & payable.any(axis=2))).any(axis=1)
    near_one = np.where(lasting, 1.0 - 1.0 / PATIENCE_STEPS, 1.0)
    packed = packed._replace(discount=near_one)
    values, visits, q_values = _evaluate(followers.models, packed, rates, policies)
    for i in np.flatnonzero(lasting).tolist():
        # Exact up to the closed classes of the follower's own chain.
        model = followers[i].transition
        ended = model.left_with(taken[i] > 0.0).absorbing
        alone = Followers([followers[i]]).packed
        alone = alone._replace(absorbing=ended[None], discount=np.ones(1))
        before = _evaluate([model], alone, rates[i : i + 1], policies[i : i + 1])
        for_ever = ended & ((taken[i] * rates[i]).sum(axis=1) > 0.0)
        values[i] = np.inf if (for_ever & (visits[i] > 0.0)).any() else before.values[0]
        visits[i] = np.where(ended, visits[i], before.visits[0])
        if not for_ever.any():
            q_values[i] = np.where(ended[:, None], q_values[i], before.q_values[0])
    return Payouts(values, visits, q_values)


def _evaluate(
    models: Sequence[TransitionModel], packed: Packed, rates: FloatArray, policies: FloatArray
) -> Payouts:
    values, q_values, visits, _ = evaluate_packed(models, packed, rates, policies)
    return Payouts(np.einsum("is,is->i", packed.initial, values), visits, q_values)
