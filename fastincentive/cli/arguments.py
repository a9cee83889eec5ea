"""The arguments of the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from fastincentive import __version__
from fastincentive.bench.command import add_command as add_bench
from fastincentive.cli import terminal
from fastincentive.cli.commands import (
    audit,
    info,
    optimum,
    pareto_front,
    reproduce_paper,
    solve_model,
)

__all__ = ["build_parser"]


class _ModelNames:
    """The models' names, looked up only when an argument or the help asks for them."""

    def __iter__(self) -> Iterator[str]:
        from fastincentive.models import MODELS

        return iter(MODELS)

    def __contains__(self, name: object) -> bool:
        return any(name == known for known in self)


class _OldName(argparse.Action):
    """The old name of an argument: accepted, with a warning that says the new one."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Take the value for the new name."""
        print(
            f"{parser.prog}: warning: {option_string} is now called --{self.dest}", file=sys.stderr
        )
        setattr(namespace, self.dest, values)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="fastincentive",
        description="Incentive design: side payments from one leader to many followers, each of "
        "which solves its own Markov decision process.",
    )
    parser.add_argument("--version", action="version", version=f"fastincentive {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_reproduce(commands)
    _add_solve(commands)
    _add_optimum(commands)
    _add_pareto(commands)
    _add_audit(commands)
    add_bench(commands, lambda: terminal.on_terminal() and terminal.installed("tqdm"))
    part = commands.add_parser("info", help="print versions, threads and CPU")
    part.set_defaults(run=info)
    return parser


def _add_reproduce(commands: Any) -> None:
    part = commands.add_parser(
        "reproduce",
        help="run the paper's experiment and write a report",
        description="Run the paper's experiment: Table 1 from its three initialisations, Figures 2 "
        "to 6 and the rate of Theorem 1; and a search over regimes beyond it. Writes report.md, "
        "table1.json and the figures into a directory, and prints the tables.",
    )
    part.add_argument("--out", default="results", metavar="DIR", help="default: %(default)s")
    part.add_argument(
        "--parameterization",
        choices=("direct", "softmax", "both"),
        default="both",
        help="default: %(default)s",
    )
    part.add_argument(
        "--replications",
        type=int,
        default=10,
        metavar="N",
        help="runs of Figure 5 for each parameterization (default: %(default)s)",
    )
    part.add_argument(
        "--rate-iterations",
        type=int,
        default=600,
        metavar="N",
        help="of each run of Theorem 1's figure (default: %(default)s)",
    )
    part.add_argument("--no-progress", action="store_true", help="no progress bar on a terminal")
    part.set_defaults(run=reproduce_paper)


def _add_solve(commands: Any) -> None:
    part = commands.add_parser(
        "solve",
        help="solve a model of the package",
        description="Solve a model of the package and print payments, values, gaps and status.",
        epilog="Exit status: 0 solved, 1 not converged, 2 bad input.",
    )
    _model_arguments(part)
    part.add_argument(
        "--method",
        choices=("auto", "bilevel-ascent", "regime-ascent"),
        default="auto",
        help="the paper's ascent, a search over regimes, or the quickest (default: %(default)s)",
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
        help="first policies of the ascent (default: leader-optimal)",
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
    part.set_defaults(run=solve_model)


def _add_optimum(commands: Any) -> None:
    part = commands.add_parser(
        "optimum",
        help="find the certified optimum of a model of the package",
        description="Find the best payments over all deterministic best responses, with a "
        "certificate. For payments that reach one follower each; the time grows quickly with "
        "their number per follower.",
        epilog="Exit status: 0 certified, 1 not every response was listed, 2 bad input.",
    )
    _model_arguments(part)
    part.set_defaults(run=optimum)


def _add_pareto(commands: Any) -> None:
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
    part.set_defaults(run=pareto_front)


def _add_audit(commands: Any) -> None:
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
    part.set_defaults(run=audit)


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
    part.add_argument("--rng", type=int, metavar="N", help="seed of what is random (default: 0)")
    part.add_argument("--seed", type=int, dest="rng", action=_OldName, help=argparse.SUPPRESS)
    if json:
        part.add_argument(
            "--json", action="store_true", help="print JSON, and nothing else, on stdout"
        )
