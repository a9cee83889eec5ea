"""asv: what a new process pays."""

from __future__ import annotations

import subprocess
import sys


class StartUp:
    """Import, and the first solve with compiled kernels on disk."""

    number = 1
    repeat = 5

    def setup(self) -> None:
        """Fill the kernel cache."""
        self.time_first_solve()

    def time_import(self) -> None:
        """A process that only imports the package."""
        subprocess.run([sys.executable, "-c", "import fastincentive"], check=True)

    def time_first_solve(self) -> None:
        """A process that solves the paper's grid once."""
        code = "import fastincentive as fi; fi.solve(fi.models.paper_gridworld()).raise_if_failed()"
        subprocess.run([sys.executable, "-c", code], check=True)
