"""What a problem needs of the machine's memory, what there is, and the refusal to ask for more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastincentive.errors import MemoryLimitError
from fastincentive.large import recall_bytes
from fastincentive.tables import text_table

if TYPE_CHECKING:
    from fastincentive.problem import IncentiveProblem

__all__ = ["MemoryEstimate", "available_memory", "check_memory", "estimate_memory"]

#: For less than this nobody looks what there is.
UNGUARDED = 2**30
#: Arrays (n, S, A) that the ascent holds at once beside a leader pass, or after it (measured).
ASCENT_ARRAYS = 12
#: Rows of derivatives of each follower that a solve's measure of stationarity holds (measured).
STATIONARITY_ROWS = 5
#: Tables (S,)*n that doubling holds at once, and matrices (n, S, S).
JOINT_TABLES, JOINT_CHAINS = 8, 2

REMEDY = (
    "Fewer labels, a smaller max_horizon, a larger tail_tolerance or a smaller leader_discount "
    "need less, and so do fewer followers that stand for types."
)


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes by part; what the problem holds is counted, the rest is estimated.

    Attributes
    ----------
    horizon : int
        T, the times that the leader's sums go over.
    models, rewards, payments : int
        Held by the problem: the followers' transitions with what was derived from them so far; the
        rewards of followers and leader; where may be paid.
    policies : int
        Policies (n, S, A) and their chains.
    marginals, laws : int
        Label marginals (T, n, L), and state laws (T, n, S) if they are kept.
    conditional : int
        Conditional rewards (T, n, L), with what the leader's reward needs to find them.
    joining : int
        What exists twice for a moment while times are joined, as far as it is not less than what
        comes later.
    gradient : int
        dV/dpi (n, S, A).
    product_space : int
        Tables over joint states (S,)*n, where doubling takes over.
    response : int
        What a solve remembers of the followers' best responses.
    ascent : int
        Further arrays of a solve: some (n, S, A), and what its longest passes take more than one
        whose horizon is known.
    stationarity : int
        What measures how stationary its end is: grows with the square of the number of followers
        that share payments or a budget.
    """

    horizon: int
    models: int
    rewards: int
    payments: int
    policies: int
    marginals: int
    laws: int
    conditional: int
    joining: int
    gradient: int
    product_space: int
    response: int
    ascent: int
    stationarity: int

    @property
    def held(self) -> int:
        """What the problem holds already."""
        return self.models + self.rewards + self.payments

    @property
    def leader_pass(self) -> int:
        """What ``problem.leader_gradient`` takes at most at once, on top of ``held``."""
        solve = self.response + self.ascent + self.stationarity
        return self.total - self.held - solve

    @property
    def total(self) -> int:
        """All parts: what a solve needs."""
        return sum(size for _, size in self._parts())

    def raise_if_too_large(self, available: float | None = None) -> MemoryEstimate:
        """Return the estimate itself, or raise if a solve needs more than there is.

        Parameters
        ----------
        available : float, optional
            Bytes; by default what the machine has left.

        Raises
        ------
        MemoryLimitError
        """
        check_memory(f"a solve over {self.horizon} times", self.total - self.held, available)
        return self

    def _parts(self) -> Iterator[tuple[str, int]]:
        for field in fields(self)[1:]:
            yield field.name, getattr(self, field.name)

    def __str__(self) -> str:
        """Return a table, one row per part that needs anything."""
        rows = [[name.replace("_", " "), _size(size)] for name, size in self._parts() if size > 0]
        sums = [["leader pass", _size(self.leader_pass)], ["total", _size(self.total)]]
        return text_table([f"T = {self.horizon}", "memory"], [*rows, *sums], "lr")


def available_memory(root: str | Path = "/") -> float:
    """Bytes that this process may still take: what the machine has left, or its cgroup.

    Inf where the system does not tell. ``root`` is where /proc and /sys are looked for.
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


def check_memory(what: str, need: float, available: float | None = None) -> None:
    """Raise if ``need`` bytes are more than available, by default to this process.

    Raises
    ------
    MemoryLimitError
        With what is needed, what there is, and what to do.
    """
    left = available_memory() if available is None else available
    if need > left:
        raise MemoryLimitError(
            f"{what} needs {_size(need)} of memory, more than the {_size(left)} available. {REMEDY}"
        )


def estimate_memory(problem: IncentiveProblem, horizon: int, doubled: bool) -> MemoryEstimate:
    """Estimate what ``leader_gradient`` over so many times and a solve need.

    ``doubled`` tells that tables over joint states go on from there.
    """
    followers, passes, bound = problem.followers, problem.passes, problem.payments
    n, states, _ = followers.shape
    size = passes.footprint(horizon, gradient=True)
    # Values take less time than gradients: a guess taken from them is too short.
    longest = passes.footprint(horizon, gradient=True, guess=max(horizon - 1, 1))
    table = followers.rewards.nbytes
    chains = n * (8 * passes.pattern.largest + 17 * states)
    joint = 8 * (JOINT_TABLES * states**n + JOINT_CHAINS * n * states**2) if doubled else 0
    known = followers.sweepable if followers.response_memory() is not None else None
    # Followers that no payment or budget ties are judged apart.
    together = n if problem.budget is not None else max(len(group) for group in bound.groups)
    models = [mdp.transition for mdp in followers]
    seen: set[int] = set()
    return MemoryEstimate(
        horizon=horizon,
        models=_held((followers.packed, models, passes.pattern), seen),
        rewards=_held((followers, problem.leader), seen),
        payments=_held((bound, problem.cost), seen),
        policies=table + chains,
        marginals=size.marginals,
        laws=size.laws,
        conditional=0 if doubled else size.conditional,
        joining=size.joining,
        gradient=table,
        product_space=joint,
        response=0 if known is None else int(recall_bytes(n, known)),
        ascent=ASCENT_ARRAYS * table + max(sum(longest) - sum(size), 0),
        stationarity=STATIONARITY_ROWS * together * (together * table // n + 8 * bound.size),
    )


def _held(given: object, seen: set[int]) -> int:
    """Bytes of all arrays that an object of the package holds, but those ``seen`` before."""
    total = 0
    stack = [given]
    while stack:
        item = stack.pop()
        if isinstance(item, np.ndarray):
            while isinstance(item.base, np.ndarray):
                item = item.base
        if isinstance(item, (tuple, list)):
            stack += item
        elif id(item) not in seen:
            seen.add(id(item))
            if isinstance(item, np.ndarray):
                total += item.nbytes
            elif type(item).__module__.startswith("fastincentive."):
                stack += vars(item).values()
    return total


def _size(size: float) -> str:
    """Write bytes in GiB or MiB."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.2f} MiB"
