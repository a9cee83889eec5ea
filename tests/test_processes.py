"""Processes of every kind: threads of one's own, forks, caches that cannot be kept, full disks."""

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numba
import pytest
from conftest import assert_identical

import fastincentive as fi

pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="about compiled kernels")

ROOT = Path(fi.__file__).parents[1]

#: Kernels that compile in a moment, in a file of their own.
KERNELS = """
import numba
from fastincentive.kernels.jit import jit, parallel_jit

@jit
def double(x):
    return x + x

@parallel_jit
def doubled(x, out):
    for i in numba.prange(x.shape[0]):
        out[i] = double(x[i])
"""

#: No folder can be written, as in a read-only installation of a user without a home.
READ_ONLY = """
import errno, tempfile
def refuse(*args, **kwargs):
    raise OSError(errno.EROFS, "Read-only file system")
tempfile.TemporaryFile = refuse
"""

#: Files end after some bytes, as on a full disk.
FULL = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
"""

#: More than one thread of Python at a time, each with kernels that want threads.
CROWDED = """
import sys
import numpy as np
from concurrent.futures import ThreadPoolExecutor
from kernels import doubled
x = np.arange(30_000.0)
def run(k):
    for _ in range(50):
        out = np.empty(x.size)
        doubled(x, out)
        assert (out == 2.0 * x).all()
    return k
assert run(-1) == -1
sys.setswitchinterval(1e-5)
with ThreadPoolExecutor(4) as pool:
    assert list(pool.map(run, range(8))) == list(range(8))
print("done")
"""

#: A process whose kernels have had threads starts others, and these use the same kernels.
PARENT = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
import numpy as np
import fastincentive as fi
from kernels import doubled

def run(k):
    x, out = np.arange(30_000.0) + k, np.empty(30_000)
    doubled(x, out)
    assert (out == 2.0 * x).all()
    return float(out[0])

if __name__ == "__main__":
    assert run(0) == 0.0
    context = multiprocessing.get_context(sys.argv[1])
    problem = fi.models.example1()
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        assert list(pool.map(run, range(4))) == [0.0, 2.0, 4.0, 6.0]
        found = fi.sweep([problem] * 2, executor=pool, method=fi.RegimeAscent(), rng=0)
    assert [round(each.objective, 6) for each in found.solutions] == [4.0, 4.0]
    print("done")
"""


@pytest.fixture
def start(tmp_path):
    """Start Python on some code, beside the small kernels, with their cache in ``tmp_path``."""
    (tmp_path / "kernels.py").write_text(KERNELS)

    def begin(code, *arguments, **environment):
        (tmp_path / "main.py").write_text(textwrap.dedent(code))
        paths = [str(tmp_path), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        return subprocess.Popen(
            [sys.executable, str(tmp_path / "main.py"), *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return begin


def end(process):
    """Wait for a process that must end well; returns its lines and what it said beside them."""
    out, err = process.communicate(timeout=170)
    assert process.returncode == 0, f"{process.returncode}: {err}"
    return out.splitlines(), err


# Threads


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="no second thread")
@pytest.mark.parametrize("layer", ["workqueue", "default"])
def test_threads_of_ones_own(layer, start):
    lines, _ = end(start(CROWDED, NUMBA_THREADING_LAYER=layer))
    assert lines == ["done"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize(
    ("method", "layer"), [("fork", "workqueue"), ("fork", "default"), ("spawn", "default")]
)
def test_processes_of_a_process_that_has_had_threads(method, layer, start):
    lines, _ = end(start(PARENT, method, NUMBA_THREADING_LAYER=layer))
    assert lines == ["done"]


# The cache of compiled kernels


@pytest.mark.parametrize("trouble", [READ_ONLY, FULL], ids=["read-only", "full"])
def test_kernels_run_where_they_cannot_be_kept(trouble, start, tmp_path):
    code = """
    import numpy as np
    from kernels import double, doubled
    out = np.empty(3)
    doubled(np.arange(3.0), out)
    print(double(21), *out)
    import fastincentive as fi
    from fastincentive.kernels import bellman
    """
    cache = tmp_path / "cache"
    cache.mkdir()
    lines, said = end(start(trouble + textwrap.dedent(code), NUMBA_CACHE_DIR=str(cache)))
    assert lines == ["42 0.0 2.0 4.0"]
    assert said.count("RuntimeWarning") == 1
    assert "Set the environment variable NUMBA_CACHE_DIR to a folder that can be written" in said
    assert not [path for path in cache.rglob("*") if ".tmp." in path.name]


KEPT = """
import sys
import numpy as np
from kernels import double
for kind in sys.argv[1:]:
    x = np.dtype(kind).type(3)
    assert double(x) == 6, double(x)
print(sum(double.stats.cache_hits.values()))
"""


def test_processes_fill_one_cache_at_the_same_time(start, tmp_path):
    cache = str(tmp_path / "cache")
    kinds = ["f4", "f8", "i4", "i8"]
    for process in [start(KEPT, *each, NUMBA_CACHE_DIR=cache) for each in (kinds, kinds[::-1])]:
        end(process)
    end(start(KEPT, *kinds, NUMBA_CACHE_DIR=cache))  # compiles what one overwrote of another
    lines, _ = end(start(KEPT, *kinds, NUMBA_CACHE_DIR=cache))
    assert lines == ["4"]


def test_a_cache_that_leads_astray_is_not_followed(start, tmp_path):
    cache = tmp_path / "cache"
    end(start(KEPT, "f8", "i8", NUMBA_CACHE_DIR=str(cache)))
    first, second = sorted(cache.rglob("*double-*.nbc"))
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    lines, _ = end(start(KEPT, "f8", "i8", NUMBA_CACHE_DIR=str(cache)))
    assert lines == ["0"]
    first.write_bytes(kept[:100])  # a damaged file
    (index,) = cache.rglob("*double-*.nbi")
    index.write_bytes(b"")
    lines, said = end(start(KEPT, "f8", "i8", NUMBA_CACHE_DIR=str(cache)))
    assert lines == ["0"]
    assert "NUMBA_CACHE_DIR" in said


# What a process writes


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="elsewhere it stays")
def test_nothing_but_answers_on_standard_output(start):
    code = """
    import ctypes
    from threading import Thread
    import numpy as np
    import fastincentive as fi
    from fastincentive import _highs

    # Rewards with much in common: HiGHS repairs its solutions, and says so.
    rng = np.random.default_rng(5)
    laws = rng.dirichlet(np.full(5, 0.4), size=(5, 2))
    problem = fi.IncentiveProblem(
        [fi.TabularMDP(laws, rng.normal(size=(5, 2)) + 1e5, 0.99, 0)],
        fi.AdditiveReward(rng.normal(size=5)),
        fi.Payments.at_states([[0, 3]], upper=10.0),
        leader_discount=0.9,
    )
    fi.single_follower_optimum(problem)

    library = ctypes.CDLL(None)
    with _highs._silent():
        library.puts(b"chatter")
        with _highs._silent():
            library.puts(b"chatter")
        library.puts(b"chatter")
        thread = Thread(target=print, args=("ours",), kwargs={"flush": True})
        thread.start()
        thread.join()
    library.puts(b"theirs")
    library.fflush(None)
    """
    lines, _ = end(start(code))
    assert lines == ["ours", "theirs"]


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    found = fi.solve(fi.models.example1(), fi.RegimeAscent())
    path = tmp_path / "found.npz"
    fi.save_solution(path, found)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        fi.save_solution(path, found)
    assert os.listdir(tmp_path) == ["found.npz"]
    assert_identical(fi.load_solution(path).payments, found.payments)
