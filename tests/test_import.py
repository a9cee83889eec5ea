"""Importing the package is quick and light; every public name is there."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import fastincentive

LIMIT = 0.5  # seconds, on a machine that may be busy with other things
HEAVY = ("numba", "scipy", "matplotlib", "tqdm")

MEASURE = f"""
import sys, time
start = time.perf_counter()
import fastincentive
print(time.perf_counter() - start)
print(*sorted(name for name in {HEAVY} if name in sys.modules))
"""


def run(code):
    """Run code in a fresh interpreter, in which the package is the one under test."""
    root = str(Path(fastincentive.__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {root!r})\n{code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_import_is_quick_and_light():
    seconds = []
    for _ in range(3):
        taken, loaded = run(MEASURE)
        assert loaded == ""
        seconds.append(float(taken))
    assert min(seconds) < LIMIT


def test_every_public_name_resolves():
    for name in fastincentive.__all__:
        assert getattr(fastincentive, name) is not None
    assert len(set(fastincentive.__all__)) == len(fastincentive.__all__)
    assert fastincentive.__all__ == sorted(fastincentive.__all__)
    assert set(fastincentive.__all__) <= set(dir(fastincentive))
    assert isinstance(fastincentive.__version__, str)


def test_public_names_are_the_modules_own():
    for name, module in fastincentive._WHERE.items():
        if module == "fastincentive":  # a wing that is public as a whole
            assert getattr(fastincentive, name) is importlib.import_module(f"fastincentive.{name}")
            continue
        source = importlib.import_module(module)
        assert getattr(fastincentive, name) is getattr(source, name)
        assert name in source.__all__


def test_star_import():
    namespace = {}
    exec("from fastincentive import *", namespace)
    assert set(fastincentive.__all__) <= set(namespace)


def test_unknown_name():
    with pytest.raises(AttributeError, match="module 'fastincentive' has no attribute 'magic'"):
        _ = fastincentive.magic


def test_the_core_needs_no_optional_package():
    code = """
import fastincentive as fi
for name in fi.__all__:
    getattr(fi, name)
problem = fi.models.example1()
fi.solve(problem, fi.BilevelAscent(max_iter=200))
print(*sorted(name for name in ("matplotlib", "tqdm", "dask", "jax") if name in sys.modules))
"""
    assert run(code) == [""]
