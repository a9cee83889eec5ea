"""Progress bars, with the ``progress`` extra."""

from __future__ import annotations

from typing import Any

from fastincentive.errors import missing_extra
from fastincentive.methods._state import StepReport

__all__ = ["progress_bar", "show_step"]


def show_step(bar: Any, report: StepReport) -> None:
    """Move the progress bar on, if there is one."""
    if bar is not None:
        evaluation = report.evaluation
        bar.set_postfix_str(
            f"objective {evaluation.objective:.4f}  worst gap {evaluation.follower_gaps.max():.1e}",
            refresh=False,
        )
        bar.update(1)


def progress_bar(total: int, initial: int) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        raise missing_extra("tqdm", "progress") from None
    return tqdm(total=total, initial=initial, unit="it", leave=False, mininterval=0.2)
