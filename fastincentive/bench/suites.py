"""The suites by name: which cases each one has."""

from __future__ import annotations

from collections.abc import Callable

from fastincentive.bench import suite_best_response as best_response
from fastincentive.bench.case import Case

__all__ = ["SUITES"]

SUITES: dict[str, Callable[[], list[Case]]] = {
    "kernels": lambda: [*best_response.cold_cases(False), *best_response.warm_cases()],
    "solvers": list,
    "scaling": list,
    "peers": lambda: best_response.cold_cases(True),
}
