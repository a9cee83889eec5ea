"""Saving and loading solutions, and files that are written as a whole or not at all.

A write that fails is provoked inside ``_files``, which has no public door.
"""

import contextlib
import json

import numpy as np
import pytest

import fastincentive as fi
from fastincentive import _files


@pytest.fixture(scope="module")
def example():
    return fi.models.example1()


def test_solution_round_trip(example, tmp_path):
    solution = fi.solve(example, fi.BilevelAscent())
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


def test_a_rewritten_file_keeps_its_permissions_and_links(tmp_path):
    path, link = tmp_path / "secret.bin", tmp_path / "link.bin"
    path.write_bytes(b"old")
    path.chmod(0o600)
    link.symlink_to(path)
    _files.write_atomically(link, b"new")
    assert link.is_symlink()
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in tmp_path.iterdir()) == ["link.bin", "secret.bin"]


@pytest.mark.parametrize("path", ["", 3, None, "a\0b"])
def test_names_that_no_file_has_are_refused(example, path):
    with pytest.raises(fi.InputError, match="path"):
        fi.load_solution(path)
    with pytest.raises(fi.InputError, match="path"):
        _files.write_atomically(path, b"")


def test_a_solution_from_a_damaged_file_is_refused(example, tmp_path):
    """Cut, with bytes changed, or with other arrays than those of a solution."""
    solution = fi.solve(example, fi.BilevelAscent())
    path = tmp_path / "solution.npz"
    fi.save_solution(path, solution)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for end in rng.integers(len(content), size=60):
        path.write_bytes(content[:end])
        with pytest.raises(fi.InputError, match=r"solution\.npz"):
            fi.load_solution(path)
    for place in rng.integers(len(content), size=200):
        path.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
        with contextlib.suppress(fi.InputError):
            fi.load_solution(path)
    path.write_bytes(content)
    with np.load(path) as file:
        arrays = dict(file)
    for name, array in arrays.items():
        for other in (array[..., :-1], array.astype(complex), array.astype(str)):
            np.savez(path, **(arrays | {name: other}))
            with pytest.raises(fi.InputError, match=r"solution\.npz"):
                fi.load_solution(path)
