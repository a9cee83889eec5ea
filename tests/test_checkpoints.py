"""Checkpoints: whose file it is, what is in it, where it cannot be written, and who goes on."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import warnings
import zipfile

import numpy as np
import pytest
from conftest import assert_identical

import fastincentive as fi
from fastincentive import _files

START = [1.5, 2.5]
METHOD = fi.BilevelAscent(max_iter=12)


def run(problem, path, method=METHOD, parameterization=None, **settings):
    settings = {"initial_payments": START, "refine": False, "checkpoint_every": 5} | settings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fi.ConvergenceWarning)
        return fi.solve(problem, method, parameterization, checkpoint=path, **settings)


@pytest.fixture(scope="module")
def example():
    return fi.models.example1()


@pytest.fixture
def path(example, tmp_path):
    """The file of a run that came to its limit."""
    path = tmp_path / "run.npz"
    run(example, path)
    return path


# Whose file it is


def test_a_run_from_elsewhere_is_refused(example, path):
    other = np.full(example.followers.shape, 1.0 / example.followers.n_actions)
    horizon = {"max_horizon": 77}, {"tail_tolerance": 1e-9}
    cases = [
        ({"initial_payments": 2.0}, "initial_payments"),
        ({"initial_policies": "best-response"}, "initial_policies"),
        ({"initial_policies": other}, "initial_policies"),
        ({"method": fi.BilevelAscent(eta=1.0, max_iter=12)}, "method"),
        ({"parameterization": fi.Softmax(0.1)}, "parameterization"),
        ({"problem": fi.models.example1(cost_weight=0.5)}, "problem"),
        *(({"problem": rebuilt(example, **each)}, "problem") for each in horizon),
    ]
    before = path.read_bytes()
    for changed, name in cases:
        problem = changed.pop("problem", example)
        message = rf"run\.npz: the checkpoint is of a run with another {name}: .*Remove the file"
        with pytest.raises(fi.InputError, match=message):
            run(problem, path, **changed)
    assert path.read_bytes() == before


def rebuilt(problem, **settings):
    return fi.IncentiveProblem(
        problem.followers,
        fi.AdditiveReward(np.arange(problem.followers.n_states)[::-1] * 1.0),
        fi.Payments.at_states([[0], [0]]),
        0.5,
        **settings,
    )


def test_fingerprints_know_bounds_and_horizons(example):
    base = rebuilt(example)
    others = [
        base,
        rebuilt(example, max_horizon=77),
        rebuilt(example, tail_tolerance=1e-9),
        rebuilt(example, cost=fi.CustomCost(lambda x: 1.0 + x.sum(), np.ones_like)),
        rebuilt(example, cost=fi.CustomCost(lambda x: 2.0 + x.sum(), np.ones_like)),
    ]
    assert len({each.fingerprint() for each in others}) == len(others)
    assert base.fingerprint() == rebuilt(example).fingerprint()


@pytest.mark.parametrize(
    "method", [fi.BilevelAscent, fi.ValuePenalty], ids=lambda method: method.__name__
)
def test_a_run_goes_on_under_a_larger_limit(example, tmp_path, method):
    path = tmp_path / "run.npz"
    whole = run(example, tmp_path / "whole.npz", method(max_iter=20))
    run(example, path, method(max_iter=12))
    with pytest.raises(fi.InputError, match=r"max_iter: expected at least 12, where .*run\.npz"):
        run(example, path, method(max_iter=11))
    more = run(example, path, method(max_iter=20))
    assert_identical(more.ascent, whole.ascent)
    assert_identical(more.history, whole.history)


# What is in it


def contents(path):
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def refusal(*arguments):
    """What a run says that is refused; empty where it is not."""
    try:
        run(*arguments)
    except fi.InputError as error:
        return str(error)
    return ""


def changed_files(path):
    """Bytes and arrays that are no checkpoint of the run."""
    whole = path.read_bytes()
    for kept in (0, 1, 30, len(whole) // 2, len(whole) - 25, len(whole) - 1):
        yield f"cut to {kept}", whole[:kept]
    yield "text", b"no archive"
    yield "null", bytes(1000)


def changed_arrays(before):
    """Arrays of a checkpoint that do not suit the problem."""
    for name, array in before.items():
        without = dict(before)
        del without[name]
        yield f"without {name}", without
        if name == "header":
            yield "header", before | {name: np.frombuffer(b"[1, 2]", np.uint8)}
            continue
        if np.issubdtype(array.dtype, np.floating):
            yield f"nan {name}", before | {name: np.full_like(array, np.nan)}
            yield f"float32 {name}", before | {name: array.astype(np.float32)}
            yield f"other order {name}", before | {name: array.astype(">f8")}
        else:
            yield f"float {name}", before | {name: array.astype(float)}
        if array.ndim:
            yield f"longer {name}", before | {name: np.concatenate([array, array])}
            yield f"none {name}", before | {name: array[:0]}
            yield f"flat {name}", before | {name: array.reshape(-1, 1, 1, 1)}
        yield f"single {name}", before | {name: np.asarray(array).reshape(-1)[0].reshape(1, 1)}
    for value in (99, -1, 2**62):
        yield (
            f"actions {value}",
            before | {"state_actions": np.full_like(before["state_actions"], value)},
        )
        yield (
            f"used {value}",
            before
            | {"planes_used": np.full_like(before["planes_used"], -5 if value < 0 else value)},
        )
    for value in (-1, 3, 2**62):
        yield f"iteration {value}", before | {"state_iteration": np.array(value)}
    yield "payments", before | {"state_payments": before["state_payments"] - 1e6}
    yield "policies", before | {"state_theta": 2.0 * before["state_theta"]}
    yield "unit", before | {"state_unit": 0.0 * before["state_unit"]}


def test_damaged_files_end_in_one_error(example, path):
    message = r"run\.npz.*(Remove it|Remove the file)"
    for what, content in changed_files(path):
        path.write_bytes(content)
        assert re.search(message, refusal(example, path)), what


def test_a_byte_that_is_another_is_seen_or_harmless(example, path):
    expected, whole = run(example, path), path.read_bytes()
    refused = 0
    for k in range(5, len(whole), 97):
        path.write_bytes(whole[:k] + bytes([whole[k] ^ 255]) + whole[k + 1 :])
        message = refusal(example, path)
        if message:
            assert "run.npz" in message
            refused += 1
        else:
            assert_identical(run(example, path).history, expected.history)
    assert refused > 10


def test_arrays_that_do_not_suit_end_in_one_error(example, path):
    before = contents(path)
    method = fi.BilevelAscent(max_iter=30)
    for what, arrays in changed_arrays(before):
        np.savez(path, **arrays)
        assert "run.npz" in refusal(example, path, method), what


def test_foreign_archives_are_refused(example, path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no array")
    with pytest.raises(fi.InputError, match=r"run\.npz: not a file written by"):
        run(example, path)
    fi.save_solution(path, fi.solve(example, refine=False))
    with pytest.raises(fi.InputError, match=r"run\.npz: expected a checkpoint of format \d, got"):
        run(example, path)
    np.save(path.with_suffix(".npy"), np.arange(3))
    with pytest.raises(fi.InputError, match="not a file written by"):
        run(example, path.with_suffix(".npy"))


# Where it cannot be written


def test_the_place_is_tried_first(example, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    seen = []
    for place in (tmp_path / "file" / "run.npz", tmp_path / "folder", tmp_path / "a\0b"):
        with pytest.raises(fi.InputError, match="checkpoint: expected a path that can be written"):
            run(example, place, callback=seen.append)
    with pytest.raises(fi.InputError, match="checkpoint: expected text or a path, got 3"):
        run(example, 3, callback=seen.append)
    assert not seen
    run(example, tmp_path / "new" / "folder" / "run.npz")
    names = [each.name for each in (tmp_path / "new" / "folder").iterdir()]
    assert names == ["run.npz"]


def test_a_full_disk_does_not_replace_the_result(example, tmp_path, monkeypatch):
    expected = run(example, tmp_path / "whole.npz")
    path, writes = tmp_path / "run.npz", []
    replace = os.replace

    def full(*names):
        writes.append(names)
        if len(writes) > 3:  # the place is tried, the start and one more are written
            raise OSError(28, "No space left on device")
        replace(*names)

    monkeypatch.setattr(_files.os, "replace", full)
    writes.extend([None] * 2)
    with pytest.raises(fi.InputError, match="checkpoint: expected a place with room for the state"):
        run(example, tmp_path / "none.npz")
    writes.clear()
    with pytest.warns(fi.CheckpointWarning, match=r"run\.npz could not be written at iteration"):
        found = run(example, path)
    assert_identical(found.ascent, expected.ascent)
    monkeypatch.undo()
    more = run(example, path)  # from the last one that could be
    assert_identical(more.history, expected.history)
    assert [each.name for each in tmp_path.iterdir() if each.suffix != ".npz"] == []


# Who goes on


def test_a_history_that_was_cut_short_is_evened(example, tmp_path, monkeypatch):
    whole = run(example, tmp_path / "whole.npz")
    path = tmp_path / "run.npz"
    record = fi.solver.watch.Watch._record

    def interrupted(self, report):
        record(self, report)
        if report.iteration == 7:
            self.history.payments.pop()
            raise KeyboardInterrupt

    monkeypatch.setattr(fi.solver.watch.Watch, "_record", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(example, path)
    monkeypatch.undo()
    assert contents(path)["history_objective"].shape == (7,)
    more = run(example, path)
    assert_identical(more.history, whole.history)
    assert_identical(more.ascent, whole.ascent)


INTERRUPTED = """
    import sys
    import fastincentive as fi

    def tell(report):
        if report.iteration == 3:
            print("running", flush=True)

    problem = fi.models.crowd(12, rng=1, size=5)
    method = fi.BilevelAscent(max_iter=100_000, tolerance=1e-300)
    fi.solve(problem, method, initial_policies="best-response", refine=False, callback=tell,
             checkpoint=sys.argv[1], checkpoint_every=100_000)
"""


@pytest.mark.slow
def test_an_interrupted_process_leaves_its_state(tmp_path):
    path = tmp_path / "run.npz"
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(INTERRUPTED))
    with subprocess.Popen(
        [sys.executable, script, path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout.readline() == b"running\n"
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert process.returncode not in (0, None)
    kept = contents(path)
    iteration = int(kept["state_iteration"])
    assert iteration >= 3
    assert len(kept["history_objective"]) in (iteration, iteration + 1)
    problem = fi.models.crowd(12, rng=1, size=5)
    settings = {"initial_policies": "best-response", "initial_payments": 2.0}
    method = fi.BilevelAscent(max_iter=iteration + 3, tolerance=1e-300)
    more = run(problem, path, method, **settings)
    whole = run(problem, tmp_path / "whole.npz", method, **settings)
    assert_identical(more.history, whole.history)
    assert_identical(more.ascent, whole.ascent)
