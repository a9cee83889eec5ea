"""Exceptions and warnings, and the one sentence shape every input error follows."""

from __future__ import annotations

from typing import Any

__all__ = [
    "CheckpointWarning",
    "ConvergenceWarning",
    "EngineError",
    "FewSamplesWarning",
    "ImproperPolicyError",
    "InfeasiblePolicyError",
    "InputError",
    "Interrupted",
    "MemoryLimitError",
    "MissingExtraError",
    "NotConvergedError",
    "ProductSpaceTooLargeError",
    "RoundingWarning",
    "TruncationWarning",
    "invalid",
    "missing_extra",
    "shown",
]


class InputError(ValueError):
    """An argument does not describe a valid problem."""


class ImproperPolicyError(InputError):
    """At discount 1 a policy neither ends nor comes to rest where nothing is earned."""


class InfeasiblePolicyError(InputError):
    """No allowed payments make the given policies best responses; the message says where."""


class ProductSpaceTooLargeError(MemoryError):
    """A dense table over the product space S^n would not fit in the allowed memory."""


class MemoryLimitError(MemoryError):
    """More memory would be taken than there is; the message says how much, and what to do."""


class NotConvergedError(RuntimeError):
    """Raised by ``Solution.raise_if_failed`` when the run did not converge."""


class Interrupted(KeyboardInterrupt):
    """A study was interrupted; what was finished by then is in ``results``."""

    def __init__(self, text: str, results: Any) -> None:
        super().__init__(f"{text} finished before the interrupt: see .results of this exception")
        self.results = results


class EngineError(RuntimeError):
    """Where an engine has the followers nobody answers any more; the message says what to do."""


class MissingExtraError(ImportError):
    """An optional package is needed; the message names the extra that installs it."""


class ConvergenceWarning(UserWarning):
    """A run stopped before its stopping rule was met; the result says how far it got."""


class FewSamplesWarning(UserWarning):
    """A model was estimated from too few samples; the message names what was hardly tried."""


class CheckpointWarning(UserWarning):
    """A state could not be written; the run, and its result, are not touched by that."""


class RoundingWarning(UserWarning):
    """Rounding takes all but a few digits of a result; the message names what is too small."""


class TruncationWarning(UserWarning):
    """A sum over time was cut at the largest horizon; the result holds the bound on the rest."""


def invalid(
    argument: str, expected: str, got: object, where: object = None, remedy: str = ""
) -> InputError:
    """Build the error for a bad argument: what was expected, what came, where, what to do."""
    text = f"{argument}: expected {expected}, got {got}"
    if where is not None:
        text += f" at {where}"
    if remedy:
        text += f". {remedy}"
    return InputError(text)


def shown(value: object) -> str:
    """Write a value in a few words, for the message of an error: arrays and objects by their kind.

    Nothing of an object is called but that of plain ones: it may be what is wrong.
    """
    if isinstance(value, (str, bytes, int, float, complex, type(None))):
        try:
            text = repr(value)
        except ValueError:  # Python writes no integers of thousands of digits
            return f"a {type(value).__name__} too long to be written"
        return text if len(text) <= 60 else f"{text[:50]}..."
    shape = getattr(value, "shape", None)
    kind = type(value).__name__
    return f"{kind} {shape}" if isinstance(shape, tuple) else kind


def missing_extra(package: str, extra: str) -> MissingExtraError:
    """Build the error for an optional package that is not installed."""
    return MissingExtraError(
        f"{package} is not installed; install it with: pip install 'fastincentive[{extra}]'"
    )
