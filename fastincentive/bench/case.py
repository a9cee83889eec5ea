"""A case: a name, the smallest profile that runs it, and how its trial is built."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from fastincentive.bench.timing import Contender, Trial
from fastincentive.errors import MissingExtraError

__all__ = ["PROFILES", "Case", "available", "chosen"]

#: Each profile runs its own cases and those of the profiles before it.
PROFILES = ("smoke", "regular", "large")


class Case(NamedTuple):
    """One question of a suite.

    ``series`` is the name of the curve that the case is a point of, and its place on it.
    """

    name: str
    profile: str
    build: Callable[[], Trial]
    series: tuple[str, float] | None = None


def available(
    builders: Iterable[Callable[[], Contender]],
) -> tuple[list[Contender], tuple[str, ...]]:
    """Build the contenders that are installed, and a line for each that is not."""
    contenders: list[Contender] = []
    skipped: list[str] = []
    for build in builders:
        try:
            contenders.append(build())
        except MissingExtraError as error:
            skipped.append(str(error))
    return contenders, tuple(dict.fromkeys(skipped))


def chosen(cases: Sequence[Case], profile: str) -> list[Case]:
    """Cases that a profile runs."""
    last = PROFILES.index(profile)
    return [each for each in cases if PROFILES.index(each.profile) <= last]
