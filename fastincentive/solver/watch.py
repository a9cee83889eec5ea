"""Who looks on while a method runs: the history, the progress bar, and the caller."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np

from fastincentive._progress import progress_bar
from fastincentive.methods.base import StepReport
from fastincentive.solution import History

__all__ = ["Watch"]


class Watch:
    """Record iterates, move the bar, call the callback; each iterate once.

    Parameters
    ----------
    history : History
        Gets a row for each iterate.
    callback : callable, optional
    total : int
        Iterations for a progress bar; 0 for none.
    """

    def __init__(
        self, history: History, callback: Callable[[StepReport], None] | None, total: int
    ) -> None:
        self.history = history
        #: Whether the callback asked to stop.
        self.stopped = False
        self._callback = callback
        self._bar = progress_bar(total, 0) if total else None
        self._last = -1

    def begin(self, iteration: int) -> None:
        """Begin a run at this iteration, of which the history may know some rows already."""
        self._last = len(self.history) - 1 if iteration else -1
        if self._bar is not None and iteration:
            self._bar.update(iteration)

    def see(self, report: StepReport) -> None:
        """Take note of an iterate.

        Raises
        ------
        StopIteration
            If the callback does.
        """
        if report.iteration <= self._last:
            return
        self._last = report.iteration
        evaluation = report.evaluation
        self._record(report)
        if self._bar is not None:
            self._bar.set_postfix_str(
                f"objective {evaluation.objective:.4f}  "
                f"worst gap {evaluation.follower_gaps.max():.1e}",
                refresh=False,
            )
            self._bar.update(1)
        if self._callback is not None:
            try:
                self._callback(_own_copy(report))
            except StopIteration:
                self.stopped = True
                raise

    def _record(self, report: StepReport) -> None:
        history, evaluation = self.history, report.evaluation
        history.leader_value.append(evaluation.leader_value)
        history.objective.append(evaluation.objective)
        history.feasibility.append(evaluation.feasibility)
        history.largest_gap.append(float(evaluation.follower_gaps.max()))
        history.multiplier.append(float(report.multipliers.max()))
        history.residual.append(report.residual)
        history.stationarity.append(report.stationarity)
        history.payments.append(report.payments.copy())

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()


def _own_copy(report: StepReport) -> StepReport:
    """Return a report whose arrays the caller may write into: the run goes on with its own."""
    copies: dict[str, Any] = {
        name: value.copy()
        for name, value in report._asdict().items()
        if isinstance(value, np.ndarray)
    }
    return report._replace(**copies, evaluation=deepcopy(report.evaluation))
