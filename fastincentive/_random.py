"""One meaning of ``rng`` everywhere: None, an integer or a generator; and its old name ``seed``."""

from __future__ import annotations

import warnings

import numpy as np

from fastincentive.errors import invalid

__all__ = ["Rng", "check_rng", "renamed_seed", "seed_of"]

#: Where random numbers come from. None: fresh entropy, other numbers in every run; an integer: the
#: seed of a new generator, the same numbers in every run; a generator: drawn from, and so moved on.
Rng = int | np.random.Generator | None


def check_rng(rng: object, argument: str = "rng") -> None:
    """Raise InputError unless ``rng`` is None, an integer >= 0 or a ``numpy.random.Generator``."""
    if rng is None or isinstance(rng, np.random.Generator):
        return
    whole = isinstance(rng, (int, np.integer)) and not isinstance(rng, bool)
    if not whole or rng < 0:  # type: ignore[operator]
        raise invalid(argument, "None, an integer >= 0 or a numpy.random.Generator", repr(rng))


def seed_of(rng: Rng) -> int:
    """Return an integer seed: the integer given, or one below 2^63 drawn from the generator.

    Without one it is drawn from fresh entropy. For settings that are copied, sent to other
    processes or stored: a generator would be drawn from in each copy on its own.
    """
    if rng is None or isinstance(rng, np.random.Generator):
        return int(np.random.default_rng(rng).integers(2**63 - 1))
    return int(rng)


def renamed_seed(rng: Rng, seed: int | None, default: Rng = 0, stacklevel: int = 4) -> Rng:
    """Return the checked ``rng`` of a function that still accepts ``seed=``, its old name.

    Parameters
    ----------
    rng : None, int or numpy.random.Generator
        As the function was given it.
    seed : int or None
        As the function was given it, None where it was not.
    default : None, int or numpy.random.Generator
        The default of the function's ``rng``, which says whether both were given.
    stacklevel : int
        Of the warning: 4 points at the caller of the ``checked`` function that calls this one, and
        at the place where a dataclass is built whose ``__post_init__`` calls it.

    Raises
    ------
    InputError
        If what is given is no ``rng``, or if both are given.
    """
    if seed is None:
        check_rng(rng)
        return rng
    if rng is not default and rng != default:
        raise invalid("seed", "none beside rng, which is its new name", repr(seed))
    check_rng(seed, "seed")
    warnings.warn("seed is now called rng", DeprecationWarning, stacklevel=stacklevel)
    return seed
