"""The paper's experiment, end to end: Table 1, Figures 2 to 6 and the rate of Theorem 1."""

from __future__ import annotations

import itertools
import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from fastincentive import solve
from fastincentive._arrays import FloatArray
from fastincentive._files import write_atomically
from fastincentive._progress import progress_bar
from fastincentive.certificates.optimum import GlobalOptimum, global_optimum
from fastincentive.errors import ConvergenceWarning, invalid, missing_extra
from fastincentive.followers.parameterization import Direct, Parameterization, Softmax
from fastincentive.methods import BilevelAscent, RegimeAscent
from fastincentive.methods.base import StepReport
from fastincentive.models import paper_gridworld, paper_initial_policies
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.reports.environment import environment
from fastincentive.reproduce.example1 import TEMPERATURE, stationary_points
from fastincentive.reproduce.rate import BARRIERS, EVERY, STEPS, measured_rates
from fastincentive.reproduce.replications import LEVELS, SHARE, Replications, replicated
from fastincentive.solution import Solution

__all__ = ["INITIALISATIONS", "PAPER_TABLE_1", "reproduce"]

#: Table 1 as printed (direct parameterization).
PAPER_TABLE_1: tuple[dict[str, Any], ...] = tuple(
    {
        "initialisation": number,
        "payments": [x1, x2],
        "feasibility": feasibility,
        "leader_value": value,
        "objective": objective,
    }
    for number, x1, x2, feasibility, value, objective in (
        (1, 1.6217, 1.8154, -1.4121e-06, 0.4145, 0.0708),
        (2, 3.2322, 4.3604, -2.6256e-04, 9.6954, 8.9361),
        (3, 3.2299, 0.5067, -1.3950e-04, 2.1214, 1.7477),
    )
)
#: The three initialisations of Table 1.
INITIALISATIONS = {
    1: "best responses to the first payments",
    2: "policies that maximise the leader's value",
    3: "robot 1 likely, robot 2 unlikely to reach a lesser goal",
}
PARAMETERIZATIONS: dict[str, Parameterization] = {
    "direct": Direct(),
    "softmax": Softmax(temperature=0.05),
}
FIRST_PAYMENT = 2.0
#: Probability of each sideways move of robots 1 and 2; the paper does not print them.
SLIPS = (0.1, 0.05)
#: Format of table1.json.
VERSION = 2
_BAR = "{desc} |{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"


def reproduce(
    out: str | Path,
    parameterizations: Sequence[str] = ("direct", "softmax"),
    *,
    method: BilevelAscent | None = None,
    replications: int = 10,
    rate_iterations: int = 600,
    progress: bool = False,
) -> dict[str, Any]:
    """Run the paper's experiment and write its report.

    Parameters
    ----------
    out : path
        Directory, made if it is not there. Receives ``report.md``, ``table1.json`` and the figures
        as PNG; each file is replaced as a whole.
    parameterizations : sequence of "direct" and "softmax"
    method : BilevelAscent, optional
        By default ``BilevelAscent()``.
    replications : int
        Runs of Figure 5 for each parameterization, from different starts near initialisation 2.
    rate_iterations : int
        Iterations of each run that Theorem 1's rate is measured on; the more the further the tail.
    progress : bool
        Show a progress bar (needs the ``progress`` extra).

    Returns
    -------
    dict
        What ``table1.json`` holds: ``runs`` (one for each parameterization and initialisation; the
        ascent alone, what was recovered from it, and what the search over regimes finds from
        there), ``optimum``, ``replications``, ``rate``, ``paper_table1``, ``example1``,
        ``settings``, ``seconds``, ``files``, ``environment``.

    Raises
    ------
    InputError
        If a parameterization is unknown or none is named, a number is too small, or ``out`` cannot
        be written; checked before the runs.
    MissingExtraError
        If matplotlib is not installed, or tqdm with ``progress=True``.
    """
    _check_numbers(replications, rate_iterations)
    names, out = _checked_names(parameterizations), Path(out)
    from fastincentive.reproduce import figures, report

    _check_writable(out)
    method = BilevelAscent() if method is None else method
    problem = paper_gridworld(SLIPS)
    clock = [time.perf_counter()]
    with _Progress(_count(names, replications), progress) as bar:
        bar.start("compiling, or loading what was compiled")
        for name in names:
            _run(problem, name, 1, BilevelAscent(max_iter=2))
        clock.append(time.perf_counter())

        solutions, runs = _table(problem, names, method, bar)
        clock.append(time.perf_counter())

        bar.start("search over regimes")
        optimum = _searched(problem, runs)
        clock.append(time.perf_counter())

        repeats = _repeats(problem, names, method, replications, bar)
        clock.append(time.perf_counter())
        rates = measured_rates(problem, rate_iterations, bar.start)
        clock.append(time.perf_counter())

        drawings = figures.drawings(problem, solutions, repeats, rates)
        for file, draw in drawings.items():
            bar.start(file)
            write_atomically(out / file, figures.png(draw()))
        clock.append(time.perf_counter())

        bar.start("report")
        result = {
            **_constants(),
            "runs": runs,
            "optimum": _certified(optimum),
            "replications": {name: each.summary() for name, each in repeats.items()},
            "rate": rates,
            "settings": _settings(problem, names, method),
            "seconds": _seconds(clock),
            "files": [*drawings, "report.md", "table1.json"],
            "environment": environment(),
        }
        text = json.dumps(result, indent=2, allow_nan=False, ensure_ascii=False)
        for file, content in (("report.md", report.markdown(result)), ("table1.json", f"{text}\n")):
            write_atomically(out / file, content.encode())
    return result


def _constants() -> dict[str, Any]:
    """Return what does not depend on the runs."""
    return {
        "format": "fastincentive reproduce",
        "format_version": VERSION,
        "paper_table1": [dict(row) for row in PAPER_TABLE_1],
        "example1": {name: stationary_points(name) for name in ("direct", "softmax")},
    }


def _count(names: Sequence[str], replications: int) -> int:
    """Return how many parts the experiment has, for the bar."""
    return len(names) * (len(INITIALISATIONS) + replications) + len(BARRIERS) * len(STEPS) + 9


def _check_numbers(replications: int, rate_iterations: int) -> None:
    """Refuse too few runs or iterations."""
    if replications < 1:
        raise invalid("replications", "a positive integer", replications)
    if rate_iterations < 2 * EVERY:
        raise invalid("rate_iterations", f"an integer of at least {2 * EVERY}", rate_iterations)


def _table(
    problem: IncentiveProblem,
    names: Sequence[str],
    method: BilevelAscent,
    bar: _Progress,
) -> tuple[dict[tuple[str, int], Solution], list[dict[str, Any]]]:
    """Solve from every initialisation; return the solutions and the rows of the table."""
    solutions, rows = {}, []
    for name, number in itertools.product(names, INITIALISATIONS):
        bar.start(f"{name}, initialisation {number}")
        solutions[name, number], row = _run(problem, name, number, method, bar.iteration)
        rows.append(row)
    return solutions, rows


def _seconds(clock: list[float]) -> dict[str, float]:
    """Seconds of each part, from the times at which they began and the last ended."""
    parts = ("compiling", "runs", "search", "replications", "rate", "figures")
    spent = dict(zip(parts, np.diff(clock).tolist(), strict=True))
    return spent | {"total": clock[-1] - clock[0]}


def _checked_names(parameterizations: Sequence[str]) -> list[str]:
    """Names of known parameterizations, each once; the figures' package must be there as well."""
    names = list(dict.fromkeys(parameterizations))
    if not names or not set(names) <= set(PARAMETERIZATIONS):
        raise invalid(
            "parameterizations", f"some of {', '.join(PARAMETERIZATIONS)}", names or "none"
        )
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise missing_extra("matplotlib", "plot") from None
    return names


def _start(problem: IncentiveProblem, number: int) -> str | FloatArray:
    if number == 3:
        return paper_initial_policies(problem)
    return {1: "best-response", 2: "leader-optimal"}[number]


def _run(
    problem: IncentiveProblem,
    name: str,
    number: int,
    method: BilevelAscent,
    callback: Callable[[StepReport], None] | None = None,
) -> tuple[Solution, dict[str, Any]]:
    """Solve from one initialisation; return the solution and its row of the table."""
    began = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        solution = solve(
            problem,
            method,
            PARAMETERIZATIONS[name],
            initial_payments=FIRST_PAYMENT,
            initial_policies=_start(problem, number),
            refine=False,
            callback=callback,
        )
    ascent = solution.ascent
    assert ascent is not None  # for the type checker: the method is an ascent
    return solution, {
        "parameterization": name,
        "initialisation": number,
        "start": INITIALISATIONS[number],
        "status": solution.status.name.lower(),
        "success": solution.success,
        "message": solution.message,
        "notes": [str(w.message) for w in caught if w.category is not ConvergenceWarning],
        "iterations": solution.nit,
        "seconds": time.perf_counter() - began,
        "ascent": {
            "payments": ascent.payments.tolist(),
            "feasibility": ascent.feasibility,
            "leader_value": ascent.leader_value,
            "objective": ascent.objective,
            "follower_gaps": ascent.follower_gaps.tolist(),
            "largest_gap": float(ascent.follower_gaps.max()),
            "multipliers": ascent.multipliers.tolist(),
            "stationarity": ascent.stationarity,
        },
        "recovered": _outcome(solution),
    }


def _repeats(
    problem: IncentiveProblem,
    names: Sequence[str],
    method: BilevelAscent,
    count: int,
    bar: _Progress,
) -> dict[str, Replications]:
    """Run the replications of Figure 5."""
    return {
        name: replicated(
            problem,
            PARAMETERIZATIONS[name],
            method,
            FIRST_PAYMENT,
            range(count),
            lambda seed, name=name: bar.start(f"{name}, replication {seed + 1}"),  # type: ignore[misc]
        )
        for name in names
    }


def _searched(problem: IncentiveProblem, runs: list[dict[str, Any]]) -> GlobalOptimum:
    """Search over regimes from what each run recovered, add it there, and return the optimum."""
    for run in runs:
        payments = run["recovered"]["payments"]
        run["refined"] = _outcome(solve(problem, RegimeAscent(), initial_payments=payments))
    return global_optimum(problem)


def _outcome(solution: Solution) -> dict[str, Any]:
    return {
        "payments": solution.payments.tolist(),
        "leader_value": solution.leader_value,
        "cost": solution.cost,
        "objective": solution.objective,
        "feasibility": solution.feasibility + 0.0,  # never -0.0
        "pessimistic_value": solution.pessimistic_value,
        "pessimistic_objective": solution.pessimistic_objective,
    }


def _certified(optimum: GlobalOptimum) -> dict[str, Any]:
    second = optimum.runner_up
    return {
        "payments": optimum.payments.tolist(),
        "leader_value": optimum.leader_value,
        "cost": optimum.cost,
        "objective": optimum.objective,
        "bound": optimum.bound,
        "combinations": optimum.combinations,
        "evaluated": optimum.evaluated,
        "complete": optimum.complete,
        "mixing_gain": optimum.mixing.gain,
        "runner_up": None
        if second is None
        else {"payments": second.payments.tolist(), "objective": second.objective},
    }


def _settings(
    problem: IncentiveProblem, names: Sequence[str], method: BilevelAscent
) -> dict[str, Any]:
    return {
        "slips": list(SLIPS),
        "follower_discounts": problem.followers.packed.discount.tolist(),
        "leader_discount": problem.leader_discount,
        "cost_weight": problem.cost_weight,
        "first_payments": [FIRST_PAYMENT] * problem.payments.size,
        "payments": [problem.payments.describe(k) for k in range(problem.payments.size)],
        "parameterizations": {name: asdict(PARAMETERIZATIONS[name]) for name in names},
        "example1_temperature": TEMPERATURE,
        "replications": {"share": SHARE, "levels": list(LEVELS)},
        "rate_every": EVERY,
        "method": {"name": type(method).__name__, **asdict(method)},
    }


def _check_writable(out: Path) -> None:
    """Make the directory and try it, before the runs rather than after them."""
    trial = out / ".fastincentive"
    try:
        write_atomically(trial, b"")
        trial.unlink()
    except OSError as error:
        raise invalid("out", "a directory to write in", f"{out} ({error.strerror})") from error


class _Progress:
    """A bar over the parts of the experiment, or nothing."""

    def __init__(self, total: int, shown: bool) -> None:
        self._bar = progress_bar(total, form=_BAR) if shown else None
        self._count = 0

    def __enter__(self) -> _Progress:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()

    def start(self, part: str) -> None:
        """Count the part before as done, and name the next."""
        if self._bar is not None:
            if self._count:
                self._bar.update(1)
            self._bar.set_postfix_str("", refresh=False)
            self._bar.set_description_str(part)
        self._count += 1
        self._iterations = 0

    def iteration(self, report: StepReport) -> None:
        """Show how far a run has come."""
        self._iterations += 1
        if self._bar is not None and self._iterations % 20 == 0:
            self._bar.set_postfix_str(
                f"iteration {self._iterations}, objective {report.evaluation.objective:.4f}"
            )
