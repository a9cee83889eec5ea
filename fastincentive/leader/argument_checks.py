"""What a reward may be asked: arguments are checked before its own methods see them.

Kernels read what they are given without looking where it ends, so no array of another shape, and no
label that the reward does not have, may come to them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import (
    LARGEST,
    FloatArray,
    as_counts,
    as_floats,
    as_numbers,
    check_finite,
    check_shape,
)
from fastincentive._checks import number, whole
from fastincentive._machine import check_large
from fastincentive.errors import invalid, shown

__all__ = ["check_questions"]

#: Rounding that label marginals may have, as from policies in single precision.
SLACK = 1e-5
_FLOAT = np.dtype(float)


def _marginals(reward: Any, argument: str, value: Any) -> FloatArray:
    """Label marginals (T, n, L)."""
    shape = (len(reward.labels), reward.n_labels)
    given = type(value) is np.ndarray and value.dtype == _FLOAT
    found = value if given else as_floats(argument, value)
    if found.ndim != 3 or found.shape[1:] != shape or not len(found):
        raise invalid(argument, f"shape (T, {shape[0]}, {shape[1]})", found.shape)
    if not (found.min() >= -SLACK and found.max() <= 1.0 + SLACK):
        bad = ~((found >= -SLACK) & (found <= 1.0 + SLACK))
        where = tuple(np.argwhere(bad)[0].tolist())
        raise invalid(argument, "probabilities", found[where], f"index {where}")
    return found


def _labels(reward: Any, argument: str, value: Any) -> NDArray[Any]:
    """Joint labels (M, n)."""
    found = as_numbers(argument, value)
    n, count = len(reward.labels), reward.n_labels
    if found.dtype.kind not in "iu" or found.ndim != 2 or found.shape[1] != n:
        raise invalid(argument, f"integers of shape (M, {n})", f"{found.dtype} {found.shape}")
    if found.size and not (found.min() >= 0 and found.max() < count):
        where = tuple(np.argwhere((found < 0) | (found >= count))[0].tolist())
        raise invalid(argument, f"labels in 0..{count - 1}", found[where], f"index {where}")
    return found.astype(np.int64) if found.dtype == np.uint64 else found


def _mask(reward: Any, argument: str, value: Any) -> NDArray[np.bool_]:
    """Take marked labels (n, L)."""
    found = as_numbers(argument, value)
    shape = (len(reward.labels), reward.n_labels)
    if found.dtype != np.bool_ or found.shape != shape:
        raise invalid(argument, f"bools of shape {shape}", f"{found.dtype} {found.shape}")
    return found


def _mask_or_none(reward: Any, argument: str, value: Any) -> NDArray[np.bool_] | None:
    return None if value is None else _mask(reward, argument, value)


def _reference(reward: Any, argument: str, value: Any) -> FloatArray:
    """Weights of labels (n, L)."""
    found = as_floats(argument, value)
    check_shape(argument, found, (len(reward.labels), reward.n_labels), "")
    check_finite(argument, found)
    if (found < 0.0).any():
        raise invalid(argument, "weights >= 0", found.min())
    return found


def _follower(reward: Any, argument: str, value: Any) -> int:
    found, n = whole(argument, value), len(reward.labels)
    if not 0 <= found < n:
        raise invalid(argument, f"a follower in 0..{n - 1}", found)
    return found


def _sign(reward: Any, argument: str, value: Any) -> float:
    found = number(argument, value)
    if abs(found) != 1.0:
        raise invalid(argument, "1 or -1", found)
    return found


def _times(reward: Any, argument: str, value: Any) -> int:
    found = whole(argument, value)
    if found < 0:
        raise invalid(argument, "an integer >= 0", found)
    return found


def _candidates(reward: Any, argument: str, value: Any) -> list[FloatArray]:
    """Label marginals (C_i, T, L) that each follower may choose."""
    n, count = len(reward.labels), reward.n_labels
    if not isinstance(value, (list, tuple)) or len(value) != n:
        raise invalid(argument, f"a list of {n} arrays (C, T, {count})", shown(value))
    found = [as_numbers(f"{argument}[{i}]", each) for i, each in enumerate(value)]
    for i, each in enumerate(found):
        if each.ndim != 3 or each.shape[1:] != (found[0].shape[1], count) or not len(each):
            expected = f"shape (C, T, {count}), with one T for all"
            raise invalid(f"{argument}[{i}]", expected, each.shape)
        check_finite(f"{argument}[{i}]", each)
    return found


def _weights(reward: Any, argument: str, value: Any) -> FloatArray:
    """Weights (T,) of times."""
    found = as_floats(argument, value)
    if found.ndim != 1 or not (found >= 0.0).all():
        raise invalid(argument, "weights (T,) >= 0", shown(found))
    check_finite(argument, found)
    return found


def _size(reward: Any, argument: str, value: Any) -> int:
    found = whole(argument, value)
    if not 0 < found < 2**31:
        raise invalid(argument, "a positive integer below 2^31", found)
    return found


def _counts(reward: Any, argument: str, value: Any) -> NDArray[np.int64]:
    return as_counts(argument, value)


def _weight(reward: Any, argument: str, value: Any) -> float:
    found = number(argument, value)
    if not abs(found) <= LARGEST:
        raise invalid(argument, f"a finite number of at most {LARGEST:g}", found)
    return found


#: The arguments of each question, in the order that ``BoundReward`` gives them.
_QUESTIONS: dict[str, dict[str, Callable[[Any, str, Any], Any]]] = {
    "expectations": {"marginals": _marginals},
    "expected": {"marginals": _marginals},
    "conditional": {"marginals": _marginals},
    "turns": {"marginals": _marginals},
    "pair": {"marginals": _marginals, "i": _follower, "j": _follower},
    "sampled": {"labels": _labels},
    "at_labels": {"labels": _labels},
    "magnitude": {"possible": _mask_or_none},
    "scratch_bytes": {"horizon": _times},
    "relaxed": {"candidates": _candidates, "weights": _weights},
    "majorant": {"sign": _sign, "possible": _mask, "lasting": _mask, "reference": _reference},
    # of a reward before it is bound
    "bind": {"n": _size, "n_states": _size, "n_actions": _size},
    "bind_types": {"counts": _counts, "n_states": _size, "n_actions": _size},
    "scaled": {"weight": _weight},
}


def check_questions(kind: type) -> None:
    """Let the methods of a class of rewards check what they are asked, before they answer."""
    for name, own in _QUESTIONS.items():
        if name in vars(kind):
            setattr(kind, name, _checked(vars(kind)[name], own))


def _checked(method: Callable[..., Any], own: dict[str, Any]) -> Callable[..., Any]:
    names = list(own.items())

    @wraps(method)
    def ask(reward: Any, *args: Any, **given: Any) -> Any:
        found = [
            check(reward, name, value)
            for (name, check), value in zip(names, args)  # noqa: B905
        ]
        found += args[len(found) :]
        for name in given:
            if name in own:
                given[name] = own[name](reward, name, given[name])
        if len(own) > 1:
            _check_together({**dict(zip(own, found)), **given})  # noqa: B905
        return method(reward, *found, **given)

    return ask


def _check_together(known: dict[str, Any]) -> None:
    """Raise if arguments do not fit together; of those that are missing Python will speak."""
    match known:
        case {"n": followers, "n_states": states} | {"counts": followers, "n_states": states}:
            every = int(np.sum(followers))
            check_large(f"A reward of {every} followers", 16.0 * every * states)
        case {"candidates": candidates, "weights": weights}:
            check_shape("weights", weights, candidates[0].shape[1:2], "as the candidates' times")
        case {"i": i, "j": j} if i == j:
            raise invalid("j", "another follower than i", j)
