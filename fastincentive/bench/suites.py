"""The suites by name: which cases each one has."""

from __future__ import annotations

from collections.abc import Callable

from fastincentive.bench import suite_best_response as best_response
from fastincentive.bench.case import Case
from fastincentive.bench.roofline import sweep_cases
from fastincentive.bench.suite_estimators import estimator_cases
from fastincentive.bench.suite_evaluation import evaluation_cases
from fastincentive.bench.suite_leader import leader_cases
from fastincentive.bench.suite_methods import SUITE as METHODS
from fastincentive.bench.suite_methods import method_cases
from fastincentive.bench.suite_problem import problem_cases
from fastincentive.bench.suite_scaling import scaling_cases
from fastincentive.bench.suite_solvers import solver_cases

__all__ = ["SUITES"]

SUITES: dict[str, Callable[[], list[Case]]] = {
    "kernels": lambda: [
        *best_response.cold_cases(False),
        *best_response.warm_cases(),
        *evaluation_cases(False),
        *leader_cases(False),
        *problem_cases(),
        *sweep_cases(),
    ],
    "solvers": solver_cases,
    "scaling": scaling_cases,
    "estimators": estimator_cases,
    METHODS: method_cases,
    "peers": lambda: [
        *best_response.cold_cases(True),
        *best_response.random_cases(),
        *evaluation_cases(True),
        *leader_cases(True),
    ],
}
