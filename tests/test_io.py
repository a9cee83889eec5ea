"""Saving and loading solutions, and files that are written as a whole or not at all.

A write that fails is provoked inside ``_files``, which has no public door.
"""

import json

import numpy as np
import pytest

import fastincentive as fi
from fastincentive import _files


@pytest.fixture(scope="module")
def example():
    return fi.models.example1()


def test_solution_round_trip(example, tmp_path):
    solution = fi.solve(example)
    path = tmp_path / "deep" / "solution.npz"
    fi.save_solution(path, solution)
    back = fi.load_solution(path)
    assert (back.payments == solution.payments).all()
    assert back.objective == solution.objective
    assert back.status is solution.status
    assert back.success is solution.success
    assert back.message == solution.message
    assert back.ascent.stationarity == solution.ascent.stationarity
    assert (back.ascent.theta == solution.ascent.theta).all()
    assert back.history.objective == solution.history.objective
    assert np.array_equal(np.array(back.history.payments), np.array(solution.history.payments))
    assert [file.name for file in path.parent.iterdir()] == ["solution.npz"]


def test_foreign_files_are_refused(example, tmp_path):
    path = tmp_path / "other.npz"
    np.savez(path, a=np.arange(3))
    with pytest.raises(fi.InputError, match=r"other\.npz"):
        fi.load_solution(path)
    header = np.frombuffer(json.dumps({"version": 99, "kind": "solution"}).encode(), np.uint8)
    np.savez(path, header=header)
    with pytest.raises(fi.InputError, match="99"):
        fi.load_solution(path)
    path.write_text("no archive")
    with pytest.raises(fi.InputError, match="not a file written"):
        fi.load_solution(path)
    with pytest.raises(FileNotFoundError):
        fi.load_solution(tmp_path / "missing.npz")


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.bin"
    _files.write_atomically(path, b"old")
    monkeypatch.setattr(_files.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        _files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["x.bin"]
