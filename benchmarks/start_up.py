"""asv: what a new process pays: import, compiled kernels from disk, and compiling them."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time

from benchmarks.common import needs

try:
    from fastincentive.bench.compiling import compile_seconds, kernel_names
except ImportError:  # an older commit
    compile_seconds = kernel_names = None  # type: ignore[assignment]

SOLVE = "import fastincentive as fi; fi.solve(fi.models.paper_gridworld()).raise_if_failed()"


class StartUp:
    """Import, and the first solve with compiled kernels on disk."""

    number = 1
    repeat = 5
    timeout = 600

    def setup(self) -> None:
        """Fill the kernel cache."""
        self.time_first_solve()

    def time_import(self) -> None:
        """A process that only imports the package."""
        subprocess.run([sys.executable, "-c", "import fastincentive"], check=True)

    def time_first_solve(self) -> None:
        """A process that solves the paper's grid once."""
        subprocess.run([sys.executable, "-c", SOLVE], check=True)


class ColdStart:
    """The first solve of a process that finds no compiled kernels."""

    timeout = 600

    def track_first_solve(self) -> float:
        """Seconds, from an empty cache."""
        with tempfile.TemporaryDirectory() as cache:
            began = time.perf_counter()
            environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
            subprocess.run([sys.executable, "-c", SOLVE], check=True, env=environment)
            return time.perf_counter() - began

    track_first_solve.unit = "s"


class Compiling:
    """Seconds to compile each kernel, those that it calls left out."""

    params = [["none"] if kernel_names is None else kernel_names()]
    param_names = ["kernel"]
    timeout = 600

    def setup_cache(self) -> dict[str, float]:
        """Compile everything once."""
        return {} if compile_seconds is None else compile_seconds()

    def setup(self, seconds: dict[str, float], kernel: str) -> None:
        """Leave commits without the measurement out."""
        needs(compile_seconds)

    def track_compile_seconds(self, seconds: dict[str, float], kernel: str) -> float:
        """Seconds of the kernel itself; NaN if the runs do not need it."""
        return seconds.get(kernel, math.nan)

    track_compile_seconds.unit = "s"
