"""``fastincentive bench``: its arguments, and what it prints."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

__all__ = ["add_command"]

_SUITES = ("kernels", "solvers", "scaling", "estimators", "methods", "peers")


def add_command(commands: Any, shows_bar: Callable[[], bool]) -> None:
    """Add the command to the parser's; ``shows_bar`` returns whether a bar can be shown."""
    part = commands.add_parser(
        "bench",
        help="measure speed, beside other packages if installed",
        description="Time certified answers: median and quartiles over rounds in which all "
        "contenders take turns, after a warm-up. An answer that misses its tolerance is reported "
        "as failed and never timed. Other packages are compared with where they are installed "
        "(pip install 'fastincentive[bench]').",
        epilog="Exit status: 0 done, 1 an answer of this package failed its certificate, "
        "2 bad input.",
    )
    part.add_argument(
        "--suite", choices=(*_SUITES, "all"), default="all", help="default: %(default)s"
    )
    part.add_argument(
        "--profile",
        choices=("smoke", "regular", "large"),
        default="smoke",
        help="size of the cases: half a minute (two more for methods), minutes, or up to a million "
        "states each "
        "(default: %(default)s)",
    )
    part.add_argument("--filter", default="", metavar="TEXT", help="only cases named like this")
    part.add_argument("--rounds", type=int, metavar="N", help="default: 3, 7 or 5 by profile")
    part.add_argument("--json", metavar="FILE", help="write all samples into this file")
    part.add_argument("--no-progress", action="store_true", help="no progress bar on a terminal")
    part.set_defaults(run=lambda args: _bench(args, shows_bar))


def _bench(args: argparse.Namespace, shows_bar: Callable[[], bool]) -> int:
    from fastincentive.bench.report import as_text
    from fastincentive.bench.run import run

    found = run(
        _SUITES if args.suite == "all" else (args.suite,),
        args.profile,
        args.filter,
        args.rounds,
        args.json,
        progress=not args.no_progress and shows_bar(),
    )
    print(as_text(found))
    return 1 if found["failed"] else 0
