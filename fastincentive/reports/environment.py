"""What a figure was measured with: versions, threads and CPU."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from fastincentive import __version__

__all__ = ["EXTRAS", "environment"]

#: Optional packages and the extra that installs each.
EXTRAS = {"matplotlib": "plot", "tqdm": "progress", "dask": "distributed"}
_REQUIRED = ("numpy", "scipy", "numba", "llvmlite")


def environment() -> dict[str, Any]:
    """Return versions, threads and CPU as plain data.

    Returns
    -------
    dict
        ``versions`` (name to version), ``extras`` (optional package to version, or None where it
        is not installed), ``threads`` (numba's number of threads and threading layer setting) and
        ``machine`` (system, CPU model, logical cores, and those this process may use).
    """
    from numba import config

    setting = vars(config)
    versions = {"fastincentive": __version__, "python": platform.python_version()}
    versions |= {name: metadata.version(name) for name in _REQUIRED}
    return {
        "versions": versions,
        "extras": {name: version(name) for name in EXTRAS},
        "threads": {
            "numba_threads": int(setting["NUMBA_NUM_THREADS"]),
            "numba_threading_layer": str(setting["THREADING_LAYER"]),
        },
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "usable_cores": _usable_cores(),
        },
    }


def version(name: str) -> str | None:
    """Return the version of an installed package, None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    """Name of the CPU: Linux keeps it in /proc/cpuinfo, elsewhere Python may know it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine() or "unknown"


def _usable_cores() -> int | None:
    """Return the number of cores this process may run on, where the system says."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()
