"""Types of arrays, and what is taken for an array of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastincentive.errors import invalid, shown

__all__ = [
    "LARGEST",
    "FloatArray",
    "as_floats",
    "as_integers",
    "as_numbers",
    "check_finite",
    "check_shape",
]

FloatArray = NDArray[np.float64]

#: Larger numbers are refused: sums, products and squares of them would be no numbers any more.
LARGEST = 1e100


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


def check_finite(argument: str, array: NDArray[Any], where: str = "index {}") -> None:
    """Raise at the first number that is not finite, or larger than ``LARGEST``."""
    bad = ~(np.abs(array) <= LARGEST)
    if bad.any():
        index = tuple(np.argwhere(bad)[0].tolist())
        raise invalid(
            argument, f"finite numbers of at most {LARGEST:g}", array[index], where.format(index)
        )


def check_shape(argument: str, array: NDArray[Any], shape: tuple[int, ...], meaning: str) -> None:
    """Raise unless an array has this shape."""
    if array.shape != shape:
        raise invalid(argument, f"shape {shape} {meaning}".rstrip(), array.shape)
