"""What each command of the command line does."""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fastincentive.cli import terminal
from fastincentive.errors import (
    ConvergenceWarning,
    InputError,
    missing_extra,
)

if TYPE_CHECKING:
    from fastincentive.problem.problem import IncentiveProblem

__all__ = [
    "BAD_INPUT",
    "INTERRUPTED",
    "SOLVED",
    "audit",
    "info",
    "optimum",
    "pareto_front",
    "reproduce_paper",
    "solve_model",
]

SOLVED, NOT_CONVERGED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def reproduce_paper(args: argparse.Namespace) -> int:
    """Run the paper's experiment."""
    from fastincentive.reproduce.experiment import reproduce
    from fastincentive.reproduce.report import summary

    both = ("direct", "softmax")
    chosen = both if args.parameterization == "both" else (args.parameterization,)
    shown = not args.no_progress and terminal.on_terminal() and terminal.installed("tqdm")
    result = reproduce(
        args.out,
        chosen,
        replications=args.replications,
        rate_iterations=args.rate_iterations,
        progress=shown,
    )
    print(summary(result))
    seconds = result["seconds"]
    print(
        f"\n{seconds['compiling']:.1f} s compiling or loading, {seconds['runs']:.1f} s runs, "
        f"{seconds['search']:.1f} s search, {seconds['replications']:.1f} s replications, "
        f"{seconds['rate']:.1f} s rate, {seconds['figures']:.1f} s figures. "
        f"Report: {os.path.join(args.out, 'report.md')}"
    )
    return SOLVED


def solve_model(args: argparse.Namespace) -> int:
    """Solve a model of the package."""
    from fastincentive import solve
    from fastincentive._files import json_text
    from fastincentive.followers.parameterization import Direct, Softmax
    from fastincentive.methods import BilevelAscent, RegimeAscent
    from fastincentive.reports import solve_report as report
    from fastincentive.solver.request import DEFAULT_POLICIES

    by_regimes = args.method == "regime-ascent"
    if by_regimes:
        _only_for_the_ascent(args)
    if args.temperature is not None and args.parameterization != "softmax":
        raise InputError("--temperature needs --parameterization softmax")
    problem = _build_problem(args)
    method: BilevelAscent | RegimeAscent | None = None
    if by_regimes:
        method = RegimeAscent()
    elif args.max_iter is not None:
        method = BilevelAscent(max_iter=args.max_iter)
    elif args.method == "bilevel-ascent":
        method = BilevelAscent()
    parameterization: Direct | Softmax | None = None
    if args.parameterization == "softmax":
        parameterization = Softmax() if args.temperature is None else Softmax(args.temperature)
    elif args.parameterization == "direct":
        parameterization = Direct()
    given = {} if args.start is None else {"initial_policies": args.start}
    began = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        solution = solve(
            problem,
            method,
            parameterization,
            initial_payments=args.payments[0] if len(args.payments) == 1 else args.payments,
            refine=not args.no_refine,
            certify=args.certify,
            progress=args.progress and terminal.on_terminal(),
            **given,
        )
    seconds = time.perf_counter() - began
    _print_warnings(args, caught)
    ascends = solution.ascent is not None
    settings = {
        "plan": solution.plan,
        "parameterization": args.parameterization or "direct" if ascends else None,
        "start": args.start or DEFAULT_POLICIES if ascends else None,
    }
    found = report.found(args.model, settings, problem, solution, seconds)
    print(json_text(found) if args.json else report.as_table(found))
    return SOLVED if solution.success else NOT_CONVERGED


def _only_for_the_ascent(args: argparse.Namespace) -> None:
    """Refuse what the search over regimes has no use for, rather than ignore it."""
    given = {
        "--parameterization": args.parameterization is not None,
        "--temperature": args.temperature is not None,
        "--start": args.start is not None,
        "--max-iter": args.max_iter is not None,
        "--no-refine": args.no_refine,
    }
    for name, there in given.items():
        if there:
            raise InputError(f"{name} needs --method bilevel-ascent")


def _print_warnings(args: argparse.Namespace, caught: Sequence[warnings.WarningMessage]) -> None:
    """Print each warning once, but not that a run did not converge: its status says so."""
    for text in dict.fromkeys(str(w.message) for w in caught if w.category != ConvergenceWarning):
        print(f"fastincentive {args.command}: warning: {text}", file=sys.stderr)


def _build_problem(args: argparse.Namespace) -> IncentiveProblem:
    """Build the model; only random ones draw numbers, and some take a number of followers."""
    from inspect import signature

    from fastincentive.models import MODELS

    build = MODELS[args.model]
    known = signature(build).parameters
    chosen: dict[str, Any] = {}
    if args.weight is not None:
        chosen["cost_weight"] = args.weight
    if args.followers is not None:
        if "n" not in known:
            raise InputError(f"--followers: expected none, because {args.model} has its own number")
        chosen["n"] = args.followers
    if args.rng is not None and args.rng < 0:
        raise InputError(f"--rng: expected an integer >= 0, got {args.rng}")
    if "rng" in known:
        chosen["rng"] = args.rng or 0
    elif args.rng is not None:
        print(
            f"fastincentive {args.command}: note: nothing in {args.model} is random, "
            "--rng has no effect",
            file=sys.stderr,
        )
    return build(**chosen)


def optimum(args: argparse.Namespace) -> int:
    """Certify the best payments of a model."""
    from fastincentive import global_optimum
    from fastincentive._files import json_text
    from fastincentive.reports import solve_report as report

    problem = _build_problem(args)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimum = global_optimum(problem)
    _print_warnings(args, caught)
    found = report.optimum_found(args.model, problem, optimum)
    print(json_text(found) if args.json else report.optimum_table(found))
    return SOLVED if optimum.complete else NOT_CONVERGED


def pareto_front(args: argparse.Namespace) -> int:
    """Trace value against cost."""
    from fastincentive import pareto
    from fastincentive._files import json_text
    from fastincentive.reports import solve_report as report

    if args.weight is not None and args.budgets is None:
        raise InputError("--weight needs --budgets; without it the weight is what varies")
    _check_figure(args.out)
    problem = _build_problem(args)
    began = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        front = pareto(
            problem, args.weights, args.budgets, progress=args.progress and terminal.on_terminal()
        )
    seconds = time.perf_counter() - began
    _print_warnings(args, caught)
    if args.out is not None:
        from fastincentive.plotting.solutions import plot_pareto

        title = f"{args.model}: value against cost"
        _write_figure(args.out, lambda ax: plot_pareto(front, ax).set_title(title))
    if args.json:
        print(json_text(report.front_found(args.model, problem, front, seconds)))
    else:
        print(f"{front}\n\n{front.costs.size} points in {seconds:.1f} s")
        if args.out is not None:
            print(f"Figure: {args.out}")
    return SOLVED


def audit(args: argparse.Namespace) -> int:
    """Compare estimated gradients with the exact one."""
    from fastincentive import audit_gradients
    from fastincentive.followers.parameterization import Direct, Softmax

    _check_figure(args.out)
    if args.trajectories < 2:
        raise InputError(f"--trajectories: expected at least 2, got {args.trajectories}")
    problem = _build_problem(args)
    parameterization = Direct() if args.temperature is None else Softmax(args.temperature)
    began = time.perf_counter()
    audit = audit_gradients(
        problem, None, parameterization, trajectories=args.trajectories, rng=args.rng or 0
    )
    seconds = time.perf_counter() - began
    if args.out is not None:
        from fastincentive.plotting.solutions import plot_gradient_audit

        _write_figure(args.out, lambda ax: plot_gradient_audit(audit, ax))
    print(f"{audit}\n\n{seconds:.1f} s, compiling or loading included")
    if args.out is not None:
        print(f"Figure: {args.out}")
    return SOLVED


def _check_figure(name: str | None) -> None:
    """Refuse a figure that could not be written, before any work."""
    if name is not None:
        if not name.lower().endswith(".png"):
            raise InputError(f"--out: expected a file name that ends in .png, got {name}")
        if not terminal.installed("matplotlib"):
            raise missing_extra("matplotlib", "plot")


def _write_figure(name: str, plot: Callable[[Any], Any]) -> None:
    """Write one plot into a file."""
    from matplotlib.figure import Figure

    from fastincentive._files import write_atomically
    from fastincentive.reproduce.figures import png

    figure = Figure((7.0, 4.6), layout="constrained")
    plot(figure.subplots())
    write_atomically(name, png(figure))


def info(args: argparse.Namespace) -> int:
    """Print versions, threads and CPU."""
    from fastincentive.reports.environment import EXTRAS, environment

    found = environment()
    extras = {
        name: version or f"not installed (pip install 'fastincentive[{EXTRAS[name]}]')"
        for name, version in found["extras"].items()
    }
    rows = {**found["versions"], **extras, **found["threads"], **found["machine"]}
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name.replace('_', ' '):<{width}}  {value}")
    return SOLVED
