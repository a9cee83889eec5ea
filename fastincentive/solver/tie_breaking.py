"""Which of several best responses followers take, and so what ``solve`` maximises."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastincentive._checks import check_fields
from fastincentive.errors import InputError, invalid

__all__ = ["StrongStackelberg", "WeakStackelberg", "renamed_objective"]


@dataclass(frozen=True)
class StrongStackelberg:
    """Ties are broken in the leader's favour: the paper's Problem 1."""


@dataclass(frozen=True)
class WeakStackelberg:
    """Ties are broken against the leader: the value that payments guarantee.

    The best payments for a leader that may choose among tied responses make followers just
    indifferent; against it they are worthless there, and a little more has to be paid. The largest
    guaranteed value is in general approached, not attained.

    Parameters
    ----------
    margin : float
        By how much, in units of each follower's reward (the size of its values), the wanted
        response is to be better than any other in the states it visits. Where a response cannot be
        made that much better it is made as much better as it can on the line searched.
    """

    margin: float = 1e-6

    def __post_init__(self) -> None:
        """Check the margin."""
        check_fields(self)
        if not (self.margin > 0 and np.isfinite(self.margin)):
            raise invalid("margin", "a finite number > 0", self.margin)


def renamed_objective(tie_breaking: Any, objective: Any) -> Any:
    """Return ``tie_breaking``, or what was given under its old name ``objective``, with a warning.

    Raises
    ------
    InputError
        If both are given.
    """
    if objective is None:
        return tie_breaking
    if tie_breaking is not None:
        raise InputError("objective: expected none beside tie_breaking, which is its new name")
    warnings.warn("objective is now called tie_breaking", DeprecationWarning, stacklevel=4)
    return objective
