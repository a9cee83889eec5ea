"""What memory the machine has, and the refusal to ask for more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fastincentive.errors import MemoryLimitError

__all__ = ["available_memory", "check_large", "check_memory", "text_size"]

#: For less than this the memory of the machine is not looked up.
UNGUARDED = 2**30
REMEDY = (
    "Fewer labels, a smaller max_horizon, a larger tail_tolerance or a smaller leader_discount "
    "need less, and so do fewer followers that stand for types."
)


def available_memory(root: str | Path = "/") -> float:
    """Bytes that this process may still take: what the machine has left, or its cgroup.

    Inf where the system does not say. ``root`` is where /proc and /sys are looked for.
    """
    root = Path(root)
    return min(_machine_memory(root), *_cgroup_memory(root), np.inf)


def _machine_memory(root: Path) -> float:
    for line in _lines(root / "proc/meminfo"):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return 1024.0 * int(value.split()[0])
    for pages in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"):
        try:
            return float(os.sysconf(pages)) * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, ValueError, OSError):  # not on this system
            continue
    return np.inf


def _cgroup_memory(root: Path) -> Iterator[float]:
    """Yield what is left below the limits of this process' cgroups, versions 1 and 2.

    Cached files count as used there, although they make room.
    """
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, limit, usage, cached = "", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            base, limit, usage = "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cached = "total_inactive_file"
        else:
            continue
        top = root / "sys/fs/cgroup" / base
        below = top / path.strip("/")
        for group in (below, *below.parents):
            most, used = (_lines(group / name) for name in (limit, usage))
            if most and used and most[0].isdigit():
                stat = dict(line.split(" ", 1) for line in _lines(group / "memory.stat"))
                yield max(float(most[0]) - float(used[0]) + float(stat.get(cached, 0)), 0.0)
            if group == top:
                break


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def check_memory(
    what: str, need: float, available: float | None = None, remedy: str = REMEDY
) -> None:
    """Raise if ``need`` bytes are more than available, by default to this process.

    Raises
    ------
    MemoryLimitError
        With what is needed, what there is, and what to do.
    """
    left = available_memory() if available is None else available
    if need > left:
        raise MemoryLimitError(
            f"{what} needs {text_size(need)} of memory, more than the {text_size(left)} available. "
            f"{remedy}"
        )


def check_large(what: str, need: float, remedy: str = REMEDY) -> None:
    """As ``check_memory``, of what is mostly small: the machine is asked from a GiB on."""
    if need >= UNGUARDED:
        check_memory(what, need, remedy=remedy)


def text_size(size: float) -> str:
    """Write bytes in GiB or MiB."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.2f} MiB"
