"""The README's library example and the docstrings' examples run as printed."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
#: With examples in their docstrings.
MODULES = [
    "followers.mdp",
    "leader.additive",
    "leader.base",
    "leader.congestion",
    "leader.counts",
    "leader.maximum",
    "leader.pairwise",
    "leader.product",
    "models.grid",
    "responses.cheapest",
]
#: The page on many followers has a cluster, which tests/test_engines.py runs.
PAGES = sorted(set((ROOT / "docs").glob("*.md")) - {ROOT / "docs" / "many_followers.md"})


@pytest.mark.slow
def test_library_examples(capsys):
    scope = {}
    for code in re.findall(r"^```python\n(.*?)^```", README.read_text(), re.S | re.M):
        assert len(code.splitlines()) <= 15
        exec(compile(code, str(README), "exec"), scope)
    assert scope["solution"].success
    assert "payments" in capsys.readouterr().out
    assert abs(scope["solution"].objective - scope["best"].objective) <= 1e-9
    assert scope["safe"].pessimistic_objective <= scope["best"].objective


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")  # noise never settles
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_run(page):
    scope = {}
    for code in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.S | re.M):
        exec(compile(code, str(page), "exec"), scope)


def test_there_are_two_commands():
    blocks = re.findall(r"^```bash\n(.*?)^```", README.read_text(), re.S | re.M)
    assert len(blocks) == 2
    assert "fastincentive reproduce" in blocks[0]
    assert blocks[1].rstrip().endswith("pytest")


@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples(module):
    result = doctest.testmod(importlib.import_module(f"fastincentive.{module}"))
    assert result.attempted > 0
    assert result.failed == 0
