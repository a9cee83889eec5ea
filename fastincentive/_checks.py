"""Arguments are what the signature says: checked in one place for each kind, before a call runs.

``checked`` reads the annotations of a function, ``check_fields`` those of a dataclass. What they
cannot say, as ranges and shapes, the function checks itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache, wraps
from inspect import Parameter, signature
from operator import index
from os import PathLike
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

import numpy as np

from fastincentive._arrays import as_integers, as_numbers
from fastincentive._random import check_rng
from fastincentive.errors import InputError, invalid, shown

__all__ = ["check_fields", "checked", "number", "one_of", "whole"]

Function = TypeVar("Function", bound=Callable[..., Any])
#: Checks a value of an argument with this name, and returns it in its plain form.
Check = Callable[[str, Any], Any]

#: Larger whole numbers count nothing that a machine could do.
MOST = 2**62


def number(argument: str, value: Any) -> float:
    """Return a real number, which may be infinite, as a float."""
    if type(value) is float and value == value:  # as most are
        return value
    found = np.nan
    if not isinstance(value, (str, bytes)) and np.ndim(_plain(value)) == 0:
        try:
            found = float(value)
        except (TypeError, ValueError, OverflowError):
            found = np.nan
    if np.isnan(found):
        raise invalid(argument, "a number", shown(value))
    return found


def whole(argument: str, value: Any) -> int:
    """Return an integer as an int."""
    if type(value) is int and -MOST <= value <= MOST:
        return value
    try:
        found = index(value)
    except (TypeError, ValueError):
        raise invalid(argument, "an integer", shown(value)) from None
    if not -MOST <= found <= MOST:
        raise invalid(argument, "an integer below 2^62", shown(value))
    return found


def one_of(argument: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    """Return one of a few allowed values."""
    for each in allowed:
        if type(value) is type(each) and value == each:
            return each
    raise invalid(argument, "one of " + ", ".join(map(repr, allowed)), shown(value))


def _plain(value: Any) -> Any:
    return value if isinstance(value, (np.ndarray, np.generic)) else 0


def _truth(argument: str, value: Any) -> bool:
    if isinstance(value, (bool, np.bool_)) or (type(value) is int and value in (0, 1)):
        return bool(value)
    raise invalid(argument, "True or False", shown(value))


def _text(argument: str, value: Any) -> str:
    if not isinstance(value, str):
        raise invalid(argument, "text", type(value).__name__)
    return value


def _function(argument: str, value: Any) -> Any:
    if not callable(value):
        raise invalid(argument, "a function", type(value).__name__)
    return value


def _source(argument: str, value: Any) -> Any:
    check_rng(value, argument)
    return value


def _anything(argument: str, value: Any) -> Any:
    return value


#: What annotations are checked by; other classes by ``isinstance``.
_CHECKS: dict[Any, Check] = {
    float: number,
    int: whole,
    bool: _truth,
    str: _text,
    Any: _anything,
    object: _anything,
}


class _Numbers:
    """Stands for ``ArrayLike``."""


class _Source:
    """Stands for ``Rng``."""


def _instance(kind: type) -> Check:
    """Check what is given as an object of a class; of protocols nothing is known."""
    if getattr(kind, "_is_protocol", False):
        return _anything

    def check(argument: str, value: Any) -> Any:
        if not isinstance(value, PathLike if kind is Path else kind):
            name = "path" if kind is Path else kind.__name__
            article = "an" if name[0] in "AEIOU" else "a"
            raise invalid(argument, f"{article} {name}", type(value).__name__)
        return value

    return check


def _array(dtype: Any) -> Check:
    """Check an array that is to be of a certain type, and make it so where nothing is lost."""

    def check(argument: str, value: Any) -> Any:
        found = as_numbers(argument, value)
        if dtype is np.float64:
            return np.ascontiguousarray(found, float) if found.ndim else found.astype(float)
        if dtype is np.int64:
            return as_integers(argument, found)
        if dtype is np.bool_ and found.dtype != np.bool_:
            raise invalid(argument, "an array of bools", f"{found.dtype} {found.shape}")
        return found

    return check


def _several(kinds: tuple[Any, ...], fixed: bool) -> Check:
    """Check a sequence entry by entry; of ``fixed`` length, or of any length and one kind."""
    checks = [_check_of(kind) for kind in kinds if kind is not Ellipsis]

    def check(argument: str, value: Any) -> Any:
        iterable = not isinstance(value, (str, bytes, Mapping)) and isinstance(value, Iterable)
        if not iterable or (isinstance(value, np.ndarray) and not value.ndim):
            raise invalid(argument, "a sequence", type(value).__name__)
        found = list(value)
        if fixed and len(found) != len(checks):
            raise invalid(argument, f"{len(checks)} entries", len(found))
        each = checks if fixed else checks * len(found)
        pairs = enumerate(zip(each, found, strict=True))
        found = [own(f"{argument}[{k}]", entry) for k, (own, entry) in pairs]
        return tuple(found) if isinstance(value, tuple) else found

    return check


def _mapping(kinds: tuple[Any, ...]) -> Check:
    own = _check_of(kinds[1]) if kinds else _anything

    def check(argument: str, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise invalid(argument, "a mapping", type(value).__name__)
        return {name: own(f"{argument}[{name!r}]", entry) for name, entry in value.items()}

    return check


def _any_of(kinds: tuple[Any, ...]) -> Check:
    """Check what may be of several kinds: the first that it is."""
    checks = [_check_of(kind) for kind in kinds if kind is not NoneType]

    def check(argument: str, value: Any) -> Any:
        if value is None and NoneType in kinds:
            return None
        refused = []
        for own in checks:
            try:
                return own(argument, value)
            except InputError as error:
                refused.append(error)
        # Of a sequence that has a wrong entry the entry is what matters.
        further = [each for each in refused if not str(each).startswith(f"{argument}: ")]
        if further or len(refused) == 1:
            raise (further or refused)[0]
        wanted = [str(error).partition("expected ")[2].partition(", got ")[0] for error in refused]
        raise invalid(argument, " or ".join(wanted), shown(value))

    return check


def _check_of(kind: Any) -> Check:
    """Return the check for an annotation."""
    if kind is _Numbers:
        return as_numbers
    if kind is _Source:
        return _source
    if kind in _CHECKS:
        return _CHECKS[kind]
    origin, own = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _any_of(own)
    if origin is Literal:
        return lambda argument, value: one_of(argument, value, own)
    if origin is np.ndarray:
        return _array(get_args(own[1])[0])
    if origin is Callable:
        return _function
    if origin is tuple and Ellipsis not in own:
        return _several(own, True)
    if origin in (Sequence, Iterable, list, tuple):
        return _several(own, False)
    if origin in (Mapping, dict):
        return _mapping(own)
    return _instance(kind) if isinstance(kind, type) else _anything


def _check_named(annotation: Any, names: Mapping[str, Any]) -> Check:
    """Return the check for an annotation in the words of a module; of unknown words, none."""
    known = {"ArrayLike": _Numbers, "Rng": _Source, "Callable": Callable}
    try:
        kind = eval(annotation, dict(names), known) if isinstance(annotation, str) else annotation
    except NameError:  # a word for type checkers alone
        return _anything
    return _check_of(kind)


def checked(function: Function) -> Function:
    """Check the arguments of a function, or of a method, by its annotations at every call.

    What is array-like becomes an array, NumPy's numbers Python's. Defaults are not checked.

    Raises
    ------
    InputError
        By the function, if an argument is of another kind; its name, and what was expected.
    """
    plans: list[tuple[list[tuple[str, Check]], dict[str, Check]]] = []

    def plan() -> tuple[list[tuple[str, Check]], dict[str, Check]]:
        # At the first call, when all words of the annotations are known.
        names = function.__globals__
        places: list[tuple[str, Check]] = []
        named: dict[str, Check] = {}
        for parameter in signature(function).parameters.values():
            own: Check = _anything
            if parameter.annotation is not Parameter.empty:
                own = _check_named(parameter.annotation, names)
            if parameter.kind is Parameter.POSITIONAL_OR_KEYWORD:
                places.append((parameter.name, own))
            if parameter.kind is not Parameter.VAR_KEYWORD:
                named[parameter.name] = own
        plans.append((places, named))
        return plans[0]

    @wraps(function)
    def call(*args: Any, **given: Any) -> Any:
        places, named = plans[0] if plans else plan()
        if len(args) <= len(places):  # else Python says what is wrong
            pairs = zip(places, args)  # noqa: B905
            args = tuple([own(name, value) for (name, own), value in pairs])
        for name in given:
            if name in named:
                given[name] = named[name](name, given[name])
        return function(*args, **given)

    return cast(Function, call)


def check_fields(settings: Any) -> None:
    """Check the fields of a dataclass by their annotations, and put them in their plain form.

    Raises
    ------
    InputError
        If a field is of another kind; its name, and what was expected.
    """
    for name, check in _field_checks(cast(Any, type(settings))):
        object.__setattr__(settings, name, check(name, getattr(settings, name)))


@cache
def _field_checks(kind: Any) -> list[tuple[str, Check]]:
    names = vars(sys.modules[kind.__module__])
    return [(each.name, _check_named(each.type, names)) for each in fields(kind)]
