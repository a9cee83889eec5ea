"""Types of arrays, and what is taken for an array of numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastincentive.errors import invalid, shown

__all__ = [
    "ANY_SIZE",
    "LARGEST",
    "FloatArray",
    "as_counts",
    "as_floats",
    "as_given",
    "as_integers",
    "as_numbers",
    "check_finite",
    "check_shape",
    "looks_finite",
]

FloatArray = NDArray[np.float64]

#: For arrays whose readers know how to avoid overflow.
ANY_SIZE = float(np.finfo(float).max)
_FLOAT = np.dtype(float)
#: Larger numbers are refused: sums, products and squares of them would be no numbers any more.
LARGEST = 1e100
#: So many numbers are multiplied by one thread.
_FEW = 10_000


def as_numbers(argument: str, value: object) -> NDArray[Any]:
    """Return real numbers as a plain array of bools, integers or floats; a view where it can be.

    Raises
    ------
    InputError
        For text, objects, complex numbers, masked entries, sparse matrices and ragged lists.
    """
    if type(value) is np.ndarray and value.dtype.kind in "fibu":
        return value
    if hasattr(value, "tocsr"):
        remedy = f"{argument}.toarray() makes one."
        raise invalid(argument, "a dense array", type(value).__name__, None, remedy)
    if isinstance(value, np.ma.MaskedArray):
        where = np.argwhere(np.ma.getmaskarray(value))
        if where.size:
            place = tuple(where[0].tolist())
            raise invalid(argument, "no masked entries", "one", f"index {place}", "Fill them.")
        value = value.data
    expected = "an array of real numbers"
    try:
        array = np.asarray(value)
        if array.dtype.kind == "O" and not any(isinstance(each, str) for each in array.flat):
            array = array.astype(float)  # fractions, decimals, integers beyond 64 bits
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise invalid(argument, expected, shown(value)) from None
    if array.dtype.kind not in "fibu":
        raise invalid(argument, expected, f"{array.dtype} {shown(value)}")
    return array


def as_floats(argument: str, value: object) -> FloatArray:
    """Return real numbers as a new array of floats, row by row in memory; see ``as_numbers``."""
    with np.errstate(over="ignore"):
        return np.array(as_numbers(argument, value), float, order="C")


def as_given(argument: str, value: object, shape: tuple[int, ...], meaning: str = "") -> FloatArray:
    """Return floats of this shape, the very array where kernels can take it; see ``as_numbers``.

    For inner loops: what they pass is not looked at entry by entry. Kernels are compiled for arrays
    that may be written to, row by row in memory.
    """
    if (
        type(value) is np.ndarray
        and value.shape == shape
        and (value.dtype is _FLOAT or value.dtype == _FLOAT)
        and value.flags.carray
    ):
        return value
    found = as_floats(argument, value)
    check_shape(argument, found, shape, meaning)
    return found


def looks_finite(array: FloatArray) -> bool:
    """Whether numbers are finite and at most ``LARGEST``, told in next to no time.

    False may be wrong, of many large ones; then it is worth while to look at each.
    """
    flat = array.reshape(-1)
    if flat.size <= _FEW:
        return float(np.vdot(flat, flat)) <= LARGEST**2  # dot would warn of overflow
    # Of many numbers the product would start threads.
    return bool(flat.min() >= -LARGEST and flat.max() <= LARGEST)


def as_integers(argument: str, value: object, expected: str = "integers") -> NDArray[np.int64]:
    """Return integers as a new array of 64-bit ones, row by row in memory; see ``as_numbers``.

    Raises
    ------
    InputError
        For other numbers, or integers beyond 64 bits.
    """
    array = as_numbers(argument, value)
    if array.dtype.kind not in "iu":
        raise invalid(argument, expected, f"{array.dtype} {array.shape}")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise invalid(argument, f"{expected} below 2^63", array.max())
    return np.array(array, np.int64, order="C")


def as_counts(argument: str, value: object) -> NDArray[np.int64]:
    """Return how many followers there are of each type (n,), all of them together below 2^31.

    Raises
    ------
    InputError
        For other shapes, and what are no positive integers.
    """
    array = as_numbers(argument, value)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        expected = "positive integers (n,), one per type"
        raise invalid(argument, expected, f"{array.dtype} {array.shape}")
    bad = (array < 1) | (array >= 2**31)
    if bad.any():
        k = int(np.argmax(bad))
        expected = "positive integers" + " below 2^31" * bool(array[k] > 0)
        raise invalid(argument, expected, array[k], f"type {k}")
    found = as_integers(argument, array)
    if found.sum() >= 2**31:
        raise invalid(argument, "fewer than 2^31 followers in all", int(found.sum()))
    return found


def check_finite(
    argument: str,
    array: NDArray[Any],
    where: Callable[[tuple[int, ...]], str] = "index {}".format,
    most: float = LARGEST,
) -> None:
    """Raise at the first number that is not finite, or larger than ``most``.

    ``where`` names an index in words.
    """
    bad = ~(np.abs(array) <= most)
    if bad.any():
        index = tuple(np.argwhere(bad)[0].tolist())
        small = f" of at most {most:g}" if np.isfinite(array[index]) else ""
        raise invalid(argument, f"finite numbers{small}", array[index], where(index))


def check_shape(argument: str, array: NDArray[Any], shape: tuple[int, ...], meaning: str) -> None:
    """Raise unless an array has this shape."""
    if array.shape != shape:
        comma = ", " if meaning[:1] not in ("", "(") else " "
        raise invalid(argument, f"shape {shape}{comma}{meaning}".rstrip(), array.shape)
