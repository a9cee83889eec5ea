"""The suites by name: which cases each one has."""

from __future__ import annotations

from collections.abc import Callable

from fastincentive.bench import suite_best_response as best_response
from fastincentive.bench.case import Case
from fastincentive.bench.suite_evaluation import evaluation_cases
from fastincentive.bench.suite_leader import leader_cases

__all__ = ["SUITES"]

SUITES: dict[str, Callable[[], list[Case]]] = {
    "kernels": lambda: [
        *best_response.cold_cases(False),
        *best_response.warm_cases(),
        *evaluation_cases(False),
        *leader_cases(False),
    ],
    "solvers": list,
    "scaling": list,
    "peers": lambda: [
        *best_response.cold_cases(True),
        *evaluation_cases(True),
        *leader_cases(True),
    ],
}
