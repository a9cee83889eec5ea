"""Progress bars, with the ``progress`` extra."""

from __future__ import annotations

from typing import Any, Protocol

from fastincentive.errors import missing_extra

__all__ = ["progress_bar", "show_step"]


class _Report(Protocol):
    """What an iteration reports, as ``StepReport`` does."""

    @property
    def evaluation(self) -> Any: ...


def show_step(bar: Any, report: _Report) -> None:
    """Move the progress bar on, if there is one."""
    if bar is not None:
        evaluation = report.evaluation
        bar.set_postfix_str(
            f"objective {evaluation.objective:.4f}  worst gap {evaluation.follower_gaps.max():.1e}",
            refresh=False,
        )
        bar.update(1)


def progress_bar(total: int, initial: int = 0, form: str | None = None) -> Any:
    """Open a bar of ``total`` steps; ``form`` is its tqdm ``bar_format``, if not the usual one.

    Raises
    ------
    MissingExtraError
        If tqdm is not installed.
    """
    try:
        from tqdm import tqdm
    except ImportError:
        raise missing_extra("tqdm", "progress") from None
    return tqdm(
        total=total, initial=initial, unit="it", leave=False, mininterval=0.2, bar_format=form
    )
