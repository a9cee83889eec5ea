"""Spoils arguments of the calls in ``hostile_calls.py``, a seed a case; run as a program, a worker.

``python hostile.py FIRST LAST`` prints two lines a case: before it begins, and how it ended. What
ends the worker is the fault of the case that had begun. With ``HOSTILE_APART`` in the environment
each case has a process of its own, some 30 ms longer: none can spoil what a later one finds.
"""

from __future__ import annotations

import contextlib
import fractions
import io
import os
import resource
import signal
import sys
import tempfile
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
from hostile_calls import Call, calls

import fastincentive as fi

#: Seconds that a case may take.
SECONDS = 60.0
#: Bytes of address space that a worker may take beside what it begins with.
ROOM = 6 * 2**30
#: Fields of results that may hold NaN, as their docstrings say; settings are what was given.
MAY_BE_NAN = {"multipliers", "settings"}

TYPED = (
    fi.InputError,
    fi.MemoryLimitError,
    fi.ProductSpaceTooLargeError,
    fi.MissingExtraError,
    fi.NotConvergedError,
    OSError,
)


class Late(BaseException):
    """A case took too long."""


def junk(rng):
    """Draw something that is no good argument of anything, or of few things."""
    things = [
        None, "text", "", b"bytes", 1j, np.nan, np.inf, -np.inf, -1, 0, 1, 2, 3, 10, 2**31, 2**63,
        10**300, 1e300, -1e300, 1e-300, 0.5, 1.5, True, object(), abs, int, [], (), {}, set(),
        [[1.0], [1.0, 2.0]], np.array(3.0), np.zeros(0), np.zeros((2, 0, 3)), "nan", "0.5",
        range(3), iter([1.0, 2.0]), fractions.Fraction(1, 3), np.datetime64(0, "D"),
        np.float32(0.1), np.uint8(3), Ellipsis, NotImplemented, [None], ["a", "b"], {"a": 1.0},
        np.ones(3), np.ones((2, 2)), np.arange(12), np.ones((2, 4, 2)), [1j], np.array(["x"]),
        np.array([object()]), np.ma.masked_array([1.0, 2.0], [True, False]), slice(None), fi,
        10**9, 10**18, "../nowhere/x.npz", "a\0b", [[0, 1]], [-1], [2**40], np.full((2, 4), 99),
    ]  # fmt: skip
    return things[rng.integers(len(things))]


def spoiled_array(rng, value):
    """Draw another form of an array, or one that is wrong at one place or in shape."""
    value = np.array(value)
    flat = value.reshape(-1)
    wrong = flat.copy() if flat.dtype.kind in "fc" else flat.astype(object)
    forms = [
        lambda: value[..., :-1],
        lambda: value[:-1],
        lambda: value[None],
        lambda: value.T,
        lambda: flat,
        lambda: np.concatenate([value, value]),
        lambda: value.astype(complex) + 1j,
        lambda: value.astype(np.float32),
        lambda: value.astype(object),
        lambda: value.astype(str),
        lambda: np.asfortranarray(value),
        lambda: np.repeat(value, 2, axis=-1)[..., ::2],
        lambda: value.astype(">f8"),
        lambda: value.astype(np.uint64, casting="unsafe"),
        lambda: value.astype(np.int8, casting="unsafe"),
        lambda: value.astype(bool),
        lambda: value.tolist(),
        lambda: -value.astype(float),
        lambda: value.astype(float) * 1e300,
        lambda: value.astype(float) + 1e12,
        lambda: np.ma.masked_array(value, rng.random(value.shape) < 0.5),
        lambda: np.zeros((0, *value.shape[1:])),
        lambda: value[0] if len(value) else value,
        lambda: np.broadcast_to(flat[:1].reshape((1,) * value.ndim), value.shape),
    ]
    odd = [np.nan, np.inf, -np.inf, 1e308, -1.0, 2.0, 1e-320, 99, -(2**40), 2**62]
    choice = int(rng.integers(len(forms) + len(odd)))
    if choice < len(forms) and value.ndim and value.size:
        with contextlib.suppress(TypeError, ValueError):
            return forms[choice]()
    if not flat.size:
        return junk(rng)
    entry = odd[int(rng.integers(len(odd)))]
    if wrong.dtype.kind in "fc":
        wrong[rng.integers(flat.size)] = entry
        return wrong.reshape(value.shape)
    other = flat.astype(float) if isinstance(entry, float) else flat.astype(np.int64)
    other[rng.integers(flat.size)] = entry
    return other.reshape(value.shape)


def spoiled(rng, value):
    """Draw a value in place of a good one."""
    if rng.random() < 0.3:
        return junk(rng)
    if isinstance(value, np.ndarray):
        read_only = spoiled_array(rng, value)
        if isinstance(read_only, np.ndarray) and rng.random() < 0.2:
            read_only = read_only.copy(order="K")
            read_only.flags.writeable = False
        return read_only
    if isinstance(value, bool):
        return [not value, 1, 0, 2, "True", None, np.True_, [value]][rng.integers(8)]
    if isinstance(value, (int, float)):
        others = [-value, 0, value + 1, value * 1e6, 1e300, np.inf, np.nan, 10**9, 10**18, 10**300,
                  str(value), [value], np.array([value]), complex(value), np.float32(value),
                  np.int64(value), True, value + 0.5, 2**63, np.array(value), 1e-300]  # fmt: skip
        return others[rng.integers(len(others))]
    if isinstance(value, str):
        return [value.upper(), value[:-1], value.encode(), [value], value + "\0", ""][
            rng.integers(6)
        ]
    if hasattr(value, "_fields"):
        name = value._fields[rng.integers(len(value))]
        return value._replace(**{name: spoiled(rng, getattr(value, name))})
    if isinstance(value, (list, tuple)):
        kind = type(value)
        if rng.random() < 0.3 and value and not isinstance(value[0], (dict, str)):
            with contextlib.suppress(TypeError, ValueError):
                return spoiled_array(rng, value)
        k = int(rng.integers(len(value) + 1))
        if k < len(value):
            return kind([*value[:k], spoiled(rng, value[k]), *value[k + 1 :]])
        others = [
            kind(value[:-1]),
            kind([*value, *value]),
            kind(value[::-1]),
            iter(value),
            kind([]),
        ]
        return others[rng.integers(len(others))]
    if isinstance(value, dict) and value and rng.random() < 0.7:
        key = list(value)[rng.integers(len(value))]
        return value | {key: spoiled(rng, value[key])}
    return junk(rng)


def drawn(seed: int, made: list[Call]) -> tuple[Call, dict]:
    """Return a call, and its arguments with some spoiled."""
    rng = np.random.default_rng(seed)
    call = made[rng.integers(len(made))]
    arguments = dict(call.arguments)
    if arguments:
        count = 1 if rng.random() < 0.8 else 2
        for name in rng.choice(list(arguments), size=min(count, len(arguments)), replace=False):
            arguments[name] = spoiled(rng, arguments[name])
    return call, arguments


def arrays_in(value, seen=None, depth=0):
    """Yield every array within a value, with a name of where it is."""
    seen = set() if seen is None else seen
    if id(value) in seen or depth > 6:
        return
    if isinstance(value, np.ndarray):
        yield "", value
        return
    if isinstance(value, (float, np.floating)):
        yield "", np.array(value)
        return
    if isinstance(value, (str, bytes, int, type(None), np.random.Generator, type)):
        return
    seen.add(id(value))
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, (list, tuple)):
        names = getattr(value, "_fields", range(len(value)))
        parts = zip(names, value, strict=True)
    elif type(value).__module__.startswith("fastincentive") and hasattr(value, "__dict__"):
        parts = list(vars(value).items())
    else:
        return
    for name, part in parts:
        for path, array in arrays_in(part, seen, depth + 1):
            yield f"{name}.{path}", array


def digests(value) -> dict[str, int]:
    """Tell arrays by what is in them."""
    return {
        path: zlib.crc32(np.ascontiguousarray(array).view(np.uint8))
        for path, array in arrays_in(value)
        if array.dtype.kind in "biuf"
    }


def nan_in(result) -> str:
    """Return where a result holds NaN, if it does where it should not."""
    for path, array in arrays_in(result):
        known = array.dtype.kind != "f" or MAY_BE_NAN & set(path.split("."))
        if not known and np.isnan(array).any():
            return path or "the result"
    return ""


def outcome(call: Call, arguments: dict) -> tuple[str, str]:
    """Run a case: "answer" or "typed", or what is wrong with it, and more of it."""
    before = digests(arguments)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            result = call.function(**arguments)
    except Late:
        return "hang", f"{call.name}: over {SECONDS:g} s"
    except TYPED as error:
        return "typed", f"{type(error).__name__}: {error}"
    except Exception as error:
        place = error.__traceback__
        while place.tb_next is not None:
            place = place.tb_next
        where = f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}"
        return "raw", f"{call.name}: {type(error).__name__}: {error} ({where})"
    after = digests(arguments)
    changed = [path for path, digest in before.items() if after.get(path, digest) != digest]
    if changed:
        return "changed", f"{call.name}: {changed}"
    if nan := nan_in(result):
        return "nan", f"{call.name}: {nan}"
    return "answer", ""


def _late(*_):
    raise Late


def described(arguments) -> str:
    """Write what a case was called with, on one line."""
    with contextlib.suppress(Exception):
        return " ".join(f"{name}={_short(value)}" for name, value in arguments.items())
    return "?"


def _short(value) -> str:
    if isinstance(value, np.ndarray):
        return f"array{value.shape}{value.dtype}"
    return " ".join(repr(value).split())[:60]


def faulty(argument: np.ndarray, fault: int):
    """Do what must not happen."""
    if fault == 0:
        raise ZeroDivisionError
    if fault == 1:
        return argument * np.nan
    if fault == 2:
        argument += 1.0
    if fault == 3:
        time.sleep(10.0)
    if fault == 4:
        os.kill(os.getpid(), signal.SIGSEGV)
    return argument


def drawn_faults(seed: int, made: list[Call]) -> tuple[Call, dict]:
    """Stand in for ``drawn``, to test the test."""
    return Call("faulty", faulty, {}), {"argument": np.ones(3), "fault": seed}


def work(first: int, last: int) -> None:
    """Run the cases first..last-1."""
    warnings.simplefilter("ignore")
    report = os.fdopen(os.dup(1), "w", buffering=1)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        faults, apart = "HOSTILE_FAULTS" in os.environ, "HOSTILE_APART" in os.environ
        made = [] if faults else calls(Path(folder))
        for call in made:  # kernels compile
            call.function(**call.arguments)
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, resource.RLIM_INFINITY))
        signal.signal(signal.SIGALRM, _late)
        for seed in range(first, last):
            call, arguments = (drawn_faults if faults else drawn)(seed, made)
            report.write(f"begin\t{seed}\t{call.name}\t{described(arguments)}\n")
            if apart and (child := os.fork()):
                code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                if code:
                    report.write(f"end\t{seed}\tended\tits process ({code})\n")
                continue
            signal.setitimer(signal.ITIMER_REAL, 0.5 if faults else SECONDS)
            try:
                found, more = outcome(call, arguments)
            except Late:
                found, more = "hang", call.name
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0.0)
            report.write(f"end\t{seed}\t{found}\t{' '.join(more.split())}\n")
            if apart:
                os._exit(0)


if __name__ == "__main__":
    work(int(sys.argv[1]), int(sys.argv[2]))
