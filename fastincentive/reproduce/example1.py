"""The stationary points of Example 1 (Figure 2)."""

from __future__ import annotations

import math
from typing import Any

from fastincentive.errors import invalid
from fastincentive.models import example1_objective

__all__ = ["TEMPERATURE", "stationary_points"]

#: tau of Example 1, as in the paper.
TEMPERATURE = 0.05


def stationary_points(
    parameterization: str, temperature: float = TEMPERATURE
) -> list[dict[str, Any]]:
    """Find the stationary points of Example 1's f_m(x) over x >= 0.

    Parameters
    ----------
    parameterization : "direct" or "softmax"
    temperature : float
        tau of the softmax, below 0.25.

    Returns
    -------
    list of dict
        ``payments`` [x1, x2], ``objective`` f_m, and ``kind``: "maximum", "minimum" or "saddle".
        Under the direct parameterization f_m is piecewise linear and jumps; its stationary points
        are the local maxima (0, 0), (1, 0), (0, 2), (1, 2).

    Notes
    -----
    Under softmax, with p1 and p2 the probabilities of a1, df/dx1 = 0 reads
    p1 (1 - p1) = tau / (5 - 4 p2), and df/dx2 = 0 reads p2 (1 - p2) = tau / (1 + 4 p1). Each has
    a root on both sides of 1/2, a minimum and a maximum along its own axis; the corner x = 0, where
    the objective falls, is a third choice and a maximum. All nine combinations are solved.
    """
    if parameterization == "direct":
        found = [(x1, x2, "maximum") for x1 in (0.0, 1.0) for x2 in (0.0, 2.0)]
    elif parameterization == "softmax":
        if not 0.0 < temperature < 0.25:
            raise invalid("temperature", "a number in (0, 0.25)", temperature)
        found = [
            _softmax_point(first, second, temperature)
            for first in ("corner", "minimum", "maximum")
            for second in ("corner", "minimum", "maximum")
        ]
    else:
        raise invalid("parameterization", '"direct" or "softmax"', repr(parameterization))
    return [
        {
            "payments": [x1, x2],
            "objective": float(example1_objective((x1, x2), parameterization, temperature)),
            "kind": kind,
        }
        for x1, x2, kind in found
    ]


def _softmax_point(first: str, second: str, tau: float) -> tuple[float, float, str]:
    """Solve for the point that is of the given kind along each axis, by fixed-point iteration."""
    # Follower 1 leaves a1 as x1 grows, follower 2 takes it up as x2 grows.
    p1, p2 = 0.5, 0.5
    for _ in range(200):
        before = p1, p2
        p1 = (
            1.0 / (1.0 + math.exp(-1.0 / tau))
            if first == "corner"
            else _root(tau / (5.0 - 4.0 * p2), upper=first == "minimum")
        )
        p2 = (
            1.0 / (1.0 + math.exp(2.0 / tau))
            if second == "corner"
            else _root(tau / (1.0 + 4.0 * p1), upper=second == "maximum")
        )
        if abs(p1 - before[0]) + abs(p2 - before[1]) < 1e-16:
            break
    x1 = 0.0 if first == "corner" else 1.0 - tau * math.log(p1 / (1.0 - p1))
    x2 = 0.0 if second == "corner" else 2.0 + tau * math.log(p2 / (1.0 - p2))
    low = [first, second].count("minimum")
    return x1, x2, ("maximum", "saddle", "minimum")[low]


def _root(product: float, upper: bool) -> float:
    """Solve p (1 - p) = product on the side of 1/2 that is asked for."""
    spread = math.sqrt(1.0 - 4.0 * product)
    return 0.5 * (1.0 + spread) if upper else 0.5 * (1.0 - spread)
