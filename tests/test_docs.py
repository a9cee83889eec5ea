"""The pages that name code: what they name exists, and nothing that they should name is missing.

The notation is one for all pages: a file, a colon, a name in it, as in `problem/costs.py: Cost` or
`tests/test_costs.py: test_linear_cost`. Files are below the package, or below the repository.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fastincentive"
PAGES = ["CONTRIBUTING.md", "docs/architecture.md", "docs/equations.md"]
#: Pages that promise to name everything of a kind.
EQUATIONS = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
STATEMENTS = [
    *("Problem 1", "Algorithm 1, line 2", "Algorithm 1, line 3", "Algorithm 1, line 4"),
    *("Lemma 1", "Definition 1", "Proposition 1", "Proposition 2", "Example 1", "Theorem 1"),
    *("Assumption 1", "Assumption 2", "Assumption 3"),
]

NAMED = re.compile(r"`([\w/.]+\.py): ([\w.]+)`")
FILE = re.compile(r"`((?:[\w.]+/)+[\w.]*)`")


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def place(path):
    """Return the file or folder that a path on a page stands for."""
    return next((base / path for base in (PACKAGE, ROOT) if (base / path).exists()), None)


def defines(tree, name):
    """Whether a module defines a name, dotted for what is inside a class."""
    body = tree.body
    for part in name.split("."):
        found = None
        for node in body:
            match node:
                case ast.ClassDef() | ast.FunctionDef() if node.name == part:
                    found = node
                case ast.Assign(targets=[ast.Name(id=target)]) if target == part:
                    found = node
                case ast.AnnAssign(target=ast.Name(id=target)) if target == part:
                    found = node
        if found is None:
            return False
        body = getattr(found, "body", [])
    return True


def complaints(text):
    """Return what a page names that is not there."""
    missing = []
    for path, name in NAMED.findall(text):
        file = place(path)
        if file is None:
            missing.append(f"`{path}: {name}`: no such file")
        elif not defines(ast.parse(file.read_text(encoding="utf-8")), name):
            missing.append(f"`{path}: {name}`: no such name in {path}")
    missing += [f"`{path}`: no such file" for path in FILE.findall(text) if place(path) is None]
    return missing


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_exists(page):
    missing = complaints(text_of(page))
    assert not missing, "\n".join(["", *missing])


@pytest.mark.parametrize("page", [*PAGES, "README.md"])
def test_links_lead_somewhere(page):
    folder = (ROOT / page).parent
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text_of(page)):
        assert (folder / link).exists(), link


def test_every_equation_has_its_place():
    text = text_of("docs/equations.md")
    first_cells = " ".join(re.findall(r"^\| ([^|]*) \|", text, re.M))
    numbers = set()
    for group in re.findall(r"eq\. (\d+(?:, \d+)*)", first_cells):
        numbers |= {int(each) for each in group.split(", ")}
    assert numbers == EQUATIONS
    assert [each for each in STATEMENTS if each not in first_cells] == []


def test_every_wing_and_kernel_has_its_line():
    text = text_of("docs/architecture.md")
    wings = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert [wing for wing in sorted(wings) if f"`{wing}/`" not in text] == []
    kernels = {path.name for path in (PACKAGE / "kernels").glob("[a-z]*.py")}
    listed = set(re.findall(r"^\| `(\w+\.py)` \|", text, re.M))
    assert listed == kernels


def test_the_check_can_fail():
    fine = "`problem/costs.py: LinearCost.value` `tests/test_docs.py: PAGES` `kernels/`"
    assert complaints(fine) == []
    assert len(complaints("`problem/costs.py: LinearCost.values`")) == 1
    assert len(complaints("`problem/cost.py: LinearCost`")) == 1
    assert len(complaints("`tests/test_gone.py: test_x` and `attic/`")) == 2
