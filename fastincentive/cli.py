"""The command line: ``fastincentive reproduce``, ``solve``, ``optimum``, ``pareto``, ...

Heavy modules are imported by the command that needs them, so that help and version are quick.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fastincentive import __version__
from fastincentive.bench.command import add_command as add_bench
from fastincentive.errors import (
    ConvergenceWarning,
    InputError,
    MissingExtraError,
    missing_extra,
)

if TYPE_CHECKING:
    from fastincentive.problem import IncentiveProblem

__all__ = ["main"]

SOLVED, NOT_CONVERGED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; by default those of the process.

    Returns
    -------
    int
        0 done or solved, 1 not converged, 2 bad input (the message is on stderr).
    """
    try:
        args = _parser().parse_args(argv)
    except SystemExit as stop:  # argparse has printed help, version or its error
        return stop.code if isinstance(stop.code, int) else SOLVED
    # On a busy machine threads that wait by spinning slow small problems down several times.
    # OpenMP reads this once, when numba first loads it.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        status: int = args.run(args)
    except (InputError, MissingExtraError, OSError) as error:
        print(f"fastincentive {args.command}: error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(f"fastincentive {args.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
    return status


# -- reproduce -----------------------------------------------------------------------------------


def _reproduce(args: argparse.Namespace) -> int:
    from fastincentive.reproduce import reproduce
    from fastincentive.reproduce_report import summary

    both = ("direct", "softmax")
    chosen = both if args.parameterization == "both" else (args.parameterization,)
    shown = not args.no_progress and _on_terminal() and _installed("tqdm")
    result = reproduce(args.out, chosen, progress=shown)
    print(summary(result))
    seconds = result["seconds"]
    print(
        f"\n{seconds['compiling']:.1f} s compiling or loading, {seconds['runs']:.1f} s runs, "
        f"{seconds['search']:.1f} s search, {seconds['figures']:.1f} s figures. "
        f"Report: {os.path.join(args.out, 'report.md')}"
    )
    return SOLVED


# -- solve ---------------------------------------------------------------------------------------


def _solve(args: argparse.Namespace) -> int:
    from fastincentive import solve
    from fastincentive import solve_report as report
    from fastincentive.methods import BilevelAscent, RegimeAscent
    from fastincentive.policy import Direct, Softmax

    by_regimes = args.method == "regime-ascent"
    if by_regimes:
        _only_for_the_ascent(args)
    if args.temperature is not None and args.parameterization != "softmax":
        raise InputError("--temperature needs --parameterization softmax")
    problem = _problem(args)
    method: BilevelAscent | RegimeAscent
    if by_regimes:
        method = RegimeAscent()
    else:
        method = BilevelAscent() if args.max_iter is None else BilevelAscent(max_iter=args.max_iter)
    start = args.start or ("best-response" if by_regimes else "leader-optimal")
    parameterization: Direct | Softmax = Direct()
    if args.parameterization == "softmax":
        parameterization = Softmax() if args.temperature is None else Softmax(args.temperature)
    began = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        solution = solve(
            problem,
            method,
            parameterization,
            initial_payments=args.payments[0] if len(args.payments) == 1 else args.payments,
            initial_policies=start,
            refine=not args.no_refine,
            certify=args.certify,
            progress=args.progress and _on_terminal(),
        )
    seconds = time.perf_counter() - began
    _tell(args, caught)
    settings = {
        "method": args.method,
        "parameterization": None if by_regimes else args.parameterization or "direct",
        "start": start,
    }
    found = report.found(args.model, settings, problem, solution, seconds)
    print(report.as_json(found) if args.json else report.as_table(found))
    return SOLVED if solution.success else NOT_CONVERGED


def _only_for_the_ascent(args: argparse.Namespace) -> None:
    """Refuse what the search over regimes has no use for, rather than ignore it."""
    given = {
        "--parameterization": args.parameterization is not None,
        "--temperature": args.temperature is not None,
        "--start leader-optimal": args.start == "leader-optimal",
        "--max-iter": args.max_iter is not None,
        "--no-refine": args.no_refine,
    }
    for name, there in given.items():
        if there:
            raise InputError(f"{name} needs --method bilevel-ascent")


def _tell(args: argparse.Namespace, caught: Sequence[warnings.WarningMessage]) -> None:
    """Print each warning once, but not that a run did not converge: its status says so."""
    for text in dict.fromkeys(str(w.message) for w in caught if w.category != ConvergenceWarning):
        print(f"fastincentive {args.command}: warning: {text}", file=sys.stderr)


def _problem(args: argparse.Namespace) -> IncentiveProblem:
    """Build the model; only random ones take the seed, and some a number of followers."""
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
    if "rng" in known:
        chosen["rng"] = 0 if args.seed is None else args.seed
        if chosen["rng"] < 0:
            raise InputError(f"--seed: expected an integer >= 0, got {args.seed}")
    elif args.seed is not None:
        print(
            f"fastincentive {args.command}: note: nothing in {args.model} is random, "
            "--seed has no effect",
            file=sys.stderr,
        )
    return build(**chosen)


# -- optimum -------------------------------------------------------------------------------------


def _optimum(args: argparse.Namespace) -> int:
    from fastincentive import global_optimum
    from fastincentive import solve_report as report

    problem = _problem(args)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimum = global_optimum(problem)
    _tell(args, caught)
    found = report.optimum_found(args.model, problem, optimum)
    print(report.as_json(found) if args.json else report.optimum_table(found))
    return SOLVED if optimum.complete else NOT_CONVERGED


# -- pareto --------------------------------------------------------------------------------------


def _pareto(args: argparse.Namespace) -> int:
    from fastincentive import pareto
    from fastincentive import solve_report as report

    if args.weight is not None and args.budgets is None:
        raise InputError("--weight needs --budgets; without it the weight is what varies")
    _check_figure(args.out)
    problem = _problem(args)
    began = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        front = pareto(
            problem, args.weights, args.budgets, progress=args.progress and _on_terminal()
        )
    seconds = time.perf_counter() - began
    _tell(args, caught)
    if args.out is not None:
        from fastincentive.plotting import plot_pareto

        title = f"{args.model}: value against cost"
        _draw(args.out, lambda ax: plot_pareto(front, ax).set_title(title))
    if args.json:
        print(report.as_json(report.front_found(args.model, problem, front, seconds)))
    else:
        print(f"{front}\n\n{front.costs.size} points in {seconds:.1f} s")
        if args.out is not None:
            print(f"Figure: {args.out}")
    return SOLVED


# -- audit ---------------------------------------------------------------------------------------


def _audit(args: argparse.Namespace) -> int:
    from fastincentive import audit_gradients
    from fastincentive.policy import Direct, Softmax

    _check_figure(args.out)
    if args.trajectories < 2:
        raise InputError(f"--trajectories: expected at least 2, got {args.trajectories}")
    problem = _problem(args)
    parameterization = Direct() if args.temperature is None else Softmax(args.temperature)
    began = time.perf_counter()
    audit = audit_gradients(
        problem, None, parameterization, trajectories=args.trajectories, seed=args.seed or 0
    )
    seconds = time.perf_counter() - began
    if args.out is not None:
        from fastincentive.plotting import plot_gradient_audit

        _draw(args.out, lambda ax: plot_gradient_audit(audit, ax))
    print(f"{audit}\n\n{seconds:.1f} s, compiling or loading included")
    if args.out is not None:
        print(f"Figure: {args.out}")
    return SOLVED


def _check_figure(name: str | None) -> None:
    """Refuse a figure that could not be written, before any work."""
    if name is not None:
        if not name.lower().endswith(".png"):
            raise InputError(f"--out: expected a file name that ends in .png, got {name}")
        if not _installed("matplotlib"):
            raise missing_extra("matplotlib", "plot")


def _draw(name: str, plot: Callable[[Any], Any]) -> None:
    """Write one plot into a file."""
    from matplotlib.figure import Figure

    from fastincentive.io import write_atomically
    from fastincentive.reproduce_figures import png

    figure = Figure((7.0, 4.6), layout="constrained")
    plot(figure.subplots())
    write_atomically(name, png(figure))


# -- info ----------------------------------------------------------------------------------------


def _info(args: argparse.Namespace) -> int:
    from fastincentive.environment import EXTRAS, environment

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


# -- arguments -----------------------------------------------------------------------------------


class _ModelNames:
    """The models' names, looked up only when an argument or the help asks for them."""

    def __iter__(self) -> Iterator[str]:
        from fastincentive.models import MODELS

        return iter(MODELS)

    def __contains__(self, name: object) -> bool:
        return any(name == known for known in self)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastincentive",
        description="Incentive design: side payments from one leader to many followers, each of "
        "which solves its own Markov decision process.",
    )
    parser.add_argument("--version", action="version", version=f"fastincentive {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    part = commands.add_parser(
        "reproduce",
        help="run the paper's experiment and write a report",
        description="Run the paper's experiment: Table 1 from its three initialisations, and "
        "Figures 2 to 6; and a search over regimes beyond it. Writes report.md, table1.json and "
        "the figures into a directory, and prints the tables.",
    )
    part.add_argument("--out", default="results", metavar="DIR", help="default: %(default)s")
    part.add_argument(
        "--parameterization",
        choices=("direct", "softmax", "both"),
        default="both",
        help="default: %(default)s",
    )
    part.add_argument("--no-progress", action="store_true", help="no progress bar on a terminal")
    part.set_defaults(run=_reproduce)

    part = commands.add_parser(
        "solve",
        help="solve a model of the package",
        description="Solve a model of the package and print payments, values, gaps and status.",
        epilog="Exit status: 0 solved, 1 not converged, 2 bad input.",
    )
    _model_arguments(part)
    part.add_argument(
        "--method",
        choices=("bilevel-ascent", "regime-ascent"),
        default="bilevel-ascent",
        help="the paper's ascent, or a search over regimes (default: %(default)s)",
    )
    part.add_argument(
        "--parameterization",
        choices=("direct", "softmax"),
        help="of the policies (default: direct)",
    )
    part.add_argument("--temperature", type=float, metavar="T", help="of the softmax")
    part.add_argument(
        "--start",
        choices=("leader-optimal", "best-response"),
        help="first policies (default: leader-optimal; of regime-ascent: best-response)",
    )
    part.add_argument(
        "--payments",
        type=float,
        nargs="+",
        default=[2.0],
        metavar="X",
        help="first payments: one number for all, or one each (default: 2)",
    )
    part.add_argument("--max-iter", type=int, metavar="N", help="most iterations")
    part.add_argument(
        "--no-refine",
        action="store_true",
        help="do not search over regimes for better payments after the ascent",
    )
    part.add_argument(
        "--certify", action="store_true", help="compute an upper bound on every objective"
    )
    part.add_argument("--progress", action="store_true", help="a progress bar on a terminal")
    part.set_defaults(run=_solve)

    part = commands.add_parser(
        "optimum",
        help="find the certified optimum of a model of the package",
        description="Find the best payments over all deterministic best responses, with a "
        "certificate. For payments that reach one follower each; the time grows quickly with "
        "their number per follower.",
        epilog="Exit status: 0 certified, 1 not every response was listed, 2 bad input.",
    )
    _model_arguments(part)
    part.set_defaults(run=_optimum)

    part = commands.add_parser(
        "pareto",
        help="trace the trade-off between the leader's value and the cost",
        description="Trace the trade-off between the leader's value and the cost of the payments, "
        "over weights of the cost (by default from payments that are nearly free to none worth "
        "it) or over budgets.",
        epilog="Exit status: 0 done, 2 bad input.",
    )
    _model_arguments(part)
    varied = part.add_mutually_exclusive_group()
    varied.add_argument("--weights", type=float, nargs="+", metavar="W", help="weights w of C(x)")
    varied.add_argument("--budgets", type=float, nargs="+", metavar="B", help="bounds on C(x)")
    part.add_argument("--out", metavar="FILE.png", help="draw the trade-off into this file")
    part.add_argument("--progress", action="store_true", help="a progress bar on a terminal")
    part.set_defaults(run=_pareto)

    part = commands.add_parser(
        "audit",
        help="compare exact and estimated gradients of a model of the package",
        description="Compare the leader's exact gradient at uniform policies with REINFORCE "
        "estimates in every form, and with finite differences.",
        epilog="Exit status: 0 done, 2 bad input.",
    )
    _model_arguments(part, json=False)
    part.add_argument(
        "--trajectories",
        type=int,
        default=20_000,
        metavar="M",
        help="joint trajectories of each estimate (default: %(default)s)",
    )
    part.add_argument(
        "--temperature", type=float, metavar="T", help="of a softmax (default: direct policies)"
    )
    part.add_argument("--out", metavar="FILE.png", help="draw the errors into this file")
    part.set_defaults(run=_audit)

    add_bench(commands, lambda: _on_terminal() and _installed("tqdm"))

    part = commands.add_parser("info", help="print versions, threads and CPU")
    part.set_defaults(run=_info)
    return parser


def _model_arguments(part: argparse.ArgumentParser, json: bool = True) -> None:
    """Add the arguments of every command that works on a model of the package."""
    part.add_argument(
        "--model",
        required=True,
        choices=_ModelNames(),
        metavar="NAME",
        help="one of %(choices)s",
    )
    part.add_argument("--weight", type=float, metavar="W", help="weight w of the cost C(x)")
    part.add_argument(
        "--followers", type=int, metavar="N", help="how many, where the model leaves it open"
    )
    part.add_argument("--seed", type=int, metavar="N", help="of a random model (default: 0)")
    if json:
        part.add_argument(
            "--json", action="store_true", help="print JSON, and nothing else, on stdout"
        )


def _on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _installed(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None
