"""The command line: ``fastincentive reproduce``, ``solve``, ``optimum``, ``pareto``, ...

Heavy modules are imported by the command that needs them, so that help and version are quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from fastincentive.cli.arguments import build_parser
from fastincentive.cli.commands import BAD_INPUT, INTERRUPTED, SOLVED
from fastincentive.errors import InputError, MissingExtraError

__all__ = ["main"]


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
        args = build_parser().parse_args(argv)
    except SystemExit as stop:  # argparse has printed help, version or its error
        return stop.code if isinstance(stop.code, int) else SOLVED
    # On a busy machine threads that wait by spinning slow small problems down several times.
    # OpenMP reads this once, when numba first loads it.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        status: int = args.run(args)
    except (InputError, MissingExtraError, MemoryError, OSError) as error:
        text = str(error) or "there is not enough memory"
        print(f"fastincentive {args.command}: error: {text}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(f"fastincentive {args.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
    return status
