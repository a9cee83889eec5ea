"""Theorem 1 measured: how fast the stationarity K falls, for several constant steps."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from fastincentive import solve
from fastincentive._arrays import FloatArray
from fastincentive.errors import ConvergenceWarning
from fastincentive.methods import BilevelAscent
from fastincentive.problem.problem import IncentiveProblem

__all__ = ["BARRIERS", "STEPS", "measured_rates", "theorem_rate"]

#: xi, for policies and payments alike, in the absolute units of the paper.
STEPS = (0.003, 0.01, 0.03, 0.1)
#: phi of Algorithm 1: eta |grad q|^2 as printed, or eta (-q).
BARRIERS: dict[Literal["gradient", "gap"], str] = {"gradient": "φ = η |∇q|²", "gap": "φ = η (−q)"}
#: K is measured at every so many iterates.
EVERY = 10


def theorem_rate(step: float, iterations: FloatArray) -> FloatArray:
    """Return sqrt(xi) + sqrt(1 / (xi k)), to which Theorem 1 says least K are proportional."""
    return np.sqrt(step) + np.sqrt(1.0 / (step * iterations))


def measured_rates(
    problem: IncentiveProblem, iterations: int, before: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Run Algorithm 1 with constant steps, and measure K along the way.

    Parameters
    ----------
    problem : IncentiveProblem
    iterations : int
        Of each run.
    before : callable
        Is told of each run.

    Returns
    -------
    list of dict
        For each barrier and step: ``iterations`` k at which K was measured, and ``least`` K up to
        k; ``slope`` of log(least) by log(k) over the last decade of iterations; ``constant``, the
        smallest c with least <= c (sqrt(xi) + sqrt(1 / (xi k))) at all of them.

    Notes
    -----
    Geometry is tangent: in the ambient one K does not vanish at a solution. Steps are absolute and
    constant and lambda is joint, as in the theorem; initialisation 2. The theorem wants q to be
    differentiable at every iterate, which no point is where a follower is indifferent.
    """
    rows = []
    for barrier in BARRIERS:
        for step in STEPS:
            before(f"rate, {barrier} barrier, step {step:g}")
            began = time.perf_counter()
            method = BilevelAscent(
                multiplier="joint",
                barrier=barrier,
                step=step,
                payment_step=step,
                schedule="constant",
                natural_gradient=False,
                tolerance=1e-12,
                max_iter=iterations,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                history = solve(
                    problem, method, refine=False, polish=False, stationarity_every=EVERY
                ).history
            least = np.minimum.accumulate(history.stationarity[::EVERY])
            rows.append(
                {
                    "barrier": barrier,
                    "step": step,
                    **_fitted(step, EVERY * np.arange(1.0, least.size), least[1:]),
                    "seconds": time.perf_counter() - began,
                }
            )
    return rows


def _fitted(step: float, iterations: FloatArray, least: FloatArray) -> dict[str, Any]:
    """Return a run's curve, and how it compares with the theorem's rate."""
    last = iterations >= iterations[-1] / 10.0
    # At a solution K is 0 up to rounding, of either sign.
    heights = np.log(np.maximum(least[last], np.finfo(float).tiny))
    slope = 0.0 if last.sum() < 2 else np.polyfit(np.log(iterations[last]), heights, 1)[0]
    return {
        "iterations": iterations.astype(int).tolist(),
        "least": least.tolist(),
        "slope": float(slope),
        "constant": float((least / theorem_rate(step, iterations)).max()),
    }
