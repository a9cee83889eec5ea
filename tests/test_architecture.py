"""Who may import whom, and how large things may grow. Files are read, never imported.

The wings stand on one another; docs/architecture.md says what each is for. A file imports from its
own wing and from the wings below: not upwards, not from a wing on the same floor, whether at the
top of the file, inside a function or under ``TYPE_CHECKING``. No files import in a circle.
"""

import ast
import io
import tokenize
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[1] / "fastincentive"
NAME = PACKAGE.name

#: The floors, from the roof to the ground.
FLOORS = (
    ("cli",),  # what a person starts
    ("reproduce", "bench"),
    ("plotting", "reports"),  # what a person looks at
    ("studies",),
    ("solver",),
    ("engines",),
    ("methods", "certificates"),  # what proves an answer is other code than what found it
    ("responses", "models"),
    ("problem",),
    ("followers", "leader"),
    ("io",),
    ("solution",),
    ("kernels",),
    ("_checks",),
    ("_files", "_highs", "_machine", "_progress", "_random", "_tables", "_threads"),  # the ground
    ("_arrays",),
    ("errors",),
)
FLOOR = {wing: floor for floor, wings in enumerate(reversed(FLOORS)) for wing in wings}
#: The roof's face: it names what the package shows, so it may import from everywhere.
FACE = {"__init__.py", "__main__.py", "theory.py"}
#: Wings that may use the public names as a user does (``from fastincentive import solve``). All
#: that has a public name lives below them, so this hides no import upwards. Elsewhere a file says
#: in which file a name lives; the version alone is for everyone.
GUESTS = {"cli", "reproduce", "bench", "reports"}
FOR_EVERYONE = {"__version__"}

FILE_LINES = 450
FUNCTION_LINES = 90  # docstring included
PARAMETERS = 8  # self and cls not counted
SOLVE_LINES = 80  # of code: neither docstring nor comments nor blank lines
#: numba's cache follows the file of a kernel, not those of its callees, so these stay together.
LONG_FILES = {"kernels/sweeps.py"}
#: Its docstring is the manual of the package; the code has a limit of its own.
LONG_FUNCTIONS = {("solver/loop.py", "solve")}


class Import(NamedTuple):
    file: str  # "wing/file.py"
    line: int
    target: str  # "wing/file.py", or "" for the public names
    name: str  # as written


def sources(package):
    """Return {"wing/file.py": its syntax tree}."""
    return {
        path.relative_to(package).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(package.rglob("*.py"))
    }


def wing_of(file):
    return file.split("/")[0].removesuffix(".py")


def resolved(dotted, files):
    """Return the file that a dotted name stands for, "" for the package itself, or None."""
    parts = dotted.split(".")[1:]
    if not parts:
        return ""
    stem = "/".join(parts)
    return next((file for file in (f"{stem}.py", f"{stem}/__init__.py") if file in files), None)


def dotted_names(node):
    """Yield (module, name or None if only the module is named) for each import that a node is."""
    match node:
        case ast.Import(names=names):
            yield from ((each.name, None) for each in names)
        case ast.ImportFrom(level=0, module=str(module), names=names):
            yield from ((module, each.name) for each in names)
        case ast.ImportFrom(level=level, names=names) if level:
            yield from ((f"{NAME}.<relative>", each.name) for each in names)
        case ast.Call(
            func=ast.Name("import_module" | "__import__") | ast.Attribute(attr="import_module"),
            args=[ast.Constant(str(module)), *_],
        ):
            yield module, None


def imports(trees):
    """Return every import of the package by its own files, and complaints on unclear ones."""
    found, complaints = [], []
    for file, tree in trees.items():
        for node in ast.walk(tree):
            for module, name in dotted_names(node):
                if module.split(".")[0] != NAME:
                    continue
                whole = module if name is None else f"{module}.{name}"
                target = resolved(whole, trees)
                if target is None or target == file:  # an attribute, not a file
                    target = resolved(module, trees)
                if target is None:
                    complaints.append(
                        f"{file}:{node.lineno}: imports {whole}: no file of the package; write "
                        "the full name of the file in which the name lives"
                    )
                else:
                    found.append(Import(file, node.lineno, target, whole))
    return found, complaints


def order_complaints(package):
    """Return what breaks the order of the wings."""
    trees = sources(package)
    found, complaints = imports(trees)
    for file in trees:
        if file not in FACE and wing_of(file) not in FLOOR:
            complaints.append(
                f"{file}: belongs to no wing; move it into one, or give its wing a floor in "
                "FLOORS of tests/test_architecture.py and a line in docs/architecture.md"
            )
    for each in found:
        wing, other = wing_of(each.file), wing_of(each.target)
        if each.file in FACE or wing not in FLOOR:
            continue
        place = f"{each.file}:{each.line}: imports {each.name}"
        if each.target == "":
            public = each.name.removeprefix(f"{NAME}.")
            if wing not in GUESTS and public not in FOR_EVERYONE:
                complaints.append(
                    f"{place}: public names are for users and for {', '.join(sorted(GUESTS))}; "
                    "import it from the file in which it lives"
                )
        elif other not in FLOOR:
            complaints.append(f"{place}: {each.target} only shows what lives elsewhere")
        elif wing != other and FLOOR[wing] <= FLOOR[other]:
            where = "on its own floor" if FLOOR[wing] == FLOOR[other] else "above it"
            complaints.append(f"{place}: {other} stands {where}")
    return complaints


def circle(package):
    """Return files that import one another in a circle, the first repeated at the end, or []."""
    trees = sources(package)
    graph = {file: set() for file in trees if file not in FACE}
    for each in imports(trees)[0]:
        if each.file in graph and each.target in graph:
            graph[each.file].add(each.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1][::-1]  # it lists each file after one that imports it
    return []


def functions(tree):
    """Yield (qualified name, node, public): public if ``__all__`` lists it or its class."""
    public = set()
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name("__all__")], value=ast.List(elts=elements)):
                public = {each.value for each in elements}

    def walk(node, prefix, shown):
        for child in ast.iter_child_nodes(node):
            name = getattr(child, "name", "")
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                own = not name.startswith("_") or name == "__init__"
                inside = isinstance(node, ast.ClassDef)
                entry = (shown and own) if inside else (not prefix and name in public)
                yield prefix + name, child, entry
                yield from walk(child, f"{prefix}{name}.", False)
            elif isinstance(child, ast.ClassDef):
                yield from walk(child, f"{prefix}{name}.", not prefix and name in public)
            else:
                yield from walk(child, prefix, shown)

    yield from walk(tree, "", False)


def parameter_count(function, public):
    """Count parameters; keyword-only ones of a public entry point are options, which are free."""
    arguments = function.args
    names = [each.arg for each in arguments.posonlyargs + arguments.args]
    count = len(names) - (names[:1] in (["self"], ["cls"]))
    return count + (0 if public else len(arguments.kwonlyargs))


def lines_of_code(text, function):
    """Count the lines of a function, signature included, without docstring and comments."""
    skipped = set()
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        skipped = set(range(first.lineno, first.end_lineno + 1))
    nothing = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in nothing:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines & set(range(function.lineno, function.end_lineno + 1)) - skipped)


def size_complaints(package):
    """Return what has grown too large."""
    complaints = []
    for file, tree in sources(package).items():
        text = (package / file).read_text(encoding="utf-8")
        lines = text.count("\n")
        if lines > FILE_LINES and file not in LONG_FILES:
            complaints.append(f"{file}: {lines} lines, at most {FILE_LINES}")
        for name, function, public in functions(tree):
            place = f"{file}:{function.lineno}: {name}"
            if (file, name) in LONG_FUNCTIONS:
                code = lines_of_code(text, function)
                if code > SOLVE_LINES:
                    complaints.append(f"{place}: {code} lines of code, at most {SOLVE_LINES}")
                continue
            if wing_of(file) == "kernels":
                continue
            length = function.end_lineno - function.lineno + 1
            if length > FUNCTION_LINES:
                complaints.append(f"{place}: {length} lines, at most {FUNCTION_LINES}")
            count = parameter_count(function, public)
            if count > PARAMETERS:
                complaints.append(f"{place}: {count} parameters, at most {PARAMETERS}")
    return complaints


def report(complaints):
    return "\n".join(["", *complaints])


def test_every_file_imports_downwards():
    complaints = order_complaints(PACKAGE)
    assert not complaints, report(complaints)


def test_no_files_import_in_a_circle():
    found = circle(PACKAGE)
    assert not found, " -> ".join(found)


def test_files_and_functions_are_small():
    complaints = size_complaints(PACKAGE)
    assert not complaints, report(complaints)


def test_exceptions_are_still_needed():
    trees = sources(PACKAGE)
    assert {f"{file}" for file in trees if "/" not in file and file in FACE} == FACE
    assert {wing_of(file) for file in trees if file not in FACE} == set(FLOOR)
    for file in LONG_FILES:
        assert (PACKAGE / file).read_text().count("\n") > FILE_LINES
    for file, name in LONG_FUNCTIONS:
        assert name in {each for each, _, _ in functions(trees[file])}


def test_public_names_live_below_those_who_use_them_as_users_do():
    lowest = min(FLOOR[wing] for wing in GUESTS)
    trees = sources(PACKAGE)
    listed = ast.parse((PACKAGE / "__init__.pyi").read_text())
    seen = 0
    for node in listed.body:
        for module, name in dotted_names(node):
            target = resolved(f"{module}.{name}", trees) or resolved(module, trees)
            assert target in FACE or FLOOR[wing_of(target)] < lowest, f"{module}.{name}"
            seen += 1
    assert seen > 50


# ------------------------------------------------------------------ the rules can be broken


def made_up(root, **files):
    """Write a package; names of files with ``__`` for the slash."""
    package = root / NAME
    for name, text in {"cli____init__": "", **files}.items():
        path = package / (name.replace("__", "/", 1) + ".py" if "__" in name else f"{name}.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return package


@pytest.mark.parametrize(
    "text",
    [
        "from fastincentive.solver.loop import solve\n",
        "from fastincentive.solver import loop\n",
        "import fastincentive.solver.loop\n",
        "def f():\n    from fastincentive.solver.loop import solve\n",
        "if TYPE_CHECKING:\n    from fastincentive.solver.loop import solve\n",
        "import importlib\nimportlib.import_module('fastincentive.solver.loop')\n",
    ],
)
def test_an_import_upwards_is_found(tmp_path, text):
    package = made_up(
        tmp_path, solver__loop="def solve(): ...\n", solver____init__="", problem__costs=text
    )
    (complaint,) = order_complaints(package)
    line = len(text.splitlines())
    assert complaint.startswith(f"problem/costs.py:{line}: imports fastincentive.solver")
    assert complaint.endswith("solver stands above it")
    assert circle(package) == []


def test_imports_downwards_and_within_a_wing_are_fine(tmp_path):
    package = made_up(
        tmp_path,
        errors="",
        io="from fastincentive.errors import invalid\n",
        problem__costs="from fastincentive.io import x\nimport numpy, os.path\n",
        problem__problem="from fastincentive.problem.costs import c\n",
        reports__report="import fastincentive as fi\nfrom fastincentive import solve\n",
        kernels__jit="from fastincentive import __version__\n",
        __main__="from fastincentive.cli import main\n",
    )
    (package / "__init__.py").write_text("")
    assert order_complaints(package) == []
    assert circle(package) == []


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("methods__a", "from fastincentive.certificates.b import c\n", "on its own floor"),
        ("problem__a", "import fastincentive as fi\n", "import it from the file in which it"),
        ("problem__a", "from fastincentive import solve\n", "import it from the file in which it"),
        ("problem__a", "from . import b\n", "write the full name"),
        ("problem__a", "from fastincentive.gone import b\n", "write the full name"),
        ("solver__a", "from fastincentive.theory import b\n", "only shows what lives elsewhere"),
        ("attic__a", "", "attic/a.py: belongs to no wing; move it into one, or give its wing"),
        ("attic", "", "attic.py: belongs to no wing"),
    ],
)
def test_other_disorder_is_found(tmp_path, file, text, expected):
    package = made_up(tmp_path, **{"certificates__b": "", "theory": "", file: text})
    (package / "__init__.py").write_text("")
    (complaint,) = order_complaints(package)
    assert expected in complaint


def test_a_circle_is_found(tmp_path):
    package = made_up(
        tmp_path,
        leader__a="from fastincentive.leader.b import x\n",
        leader__b="def f():\n    from fastincentive.leader import c\n",
        leader__c="from fastincentive.leader.a import y\n",
        leader__d="from fastincentive.leader.a import y\n",
    )
    (package / "leader" / "__init__.py").write_text("")
    found = circle(package)
    assert found[0] == found[-1]
    assert set(found) == {"leader/a.py", "leader/b.py", "leader/c.py"}
    assert "leader/a.py -> leader/b.py" in " -> ".join(found * 2)
    assert order_complaints(package) == []


def long_function(lines):
    return "def f():\n" + "    x = 1\n" * (lines - 1)


WIDE = "a, b, c, d, e, f, g, h"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1\n" * 451, "problem/a.py: 451 lines, at most 450"),
        (long_function(91), "problem/a.py:1: f: 91 lines, at most 90"),
        (f"def f({WIDE}, i): ...\n", "problem/a.py:1: f: 9 parameters, at most 8"),
        (f"def f({WIDE}, *, i=1): ...\n", "f: 9 parameters"),
        (f"__all__ = ['f']\ndef f({WIDE}, i): ...\n", "f: 9 parameters"),
        (f"class C:\n    def f(self, {WIDE}, i): ...\n", "C.f: 9 parameters"),
        (f"class C:\n    def f(self):\n        def g({WIDE}, i): ...\n", "C.f.g: 9 parameters"),
    ],
)
def test_large_things_are_found(tmp_path, text, expected):
    package = made_up(tmp_path, problem__a=text)
    (complaint,) = size_complaints(package)
    assert expected in complaint


def test_what_fits_is_fine(tmp_path):
    entry = f"__all__ = ['f', 'C']\ndef f({WIDE}, *, i=1): ...\n"
    entry += f"class C:\n    def __init__(self, {WIDE}, *, i=1): ...\n"
    package = made_up(
        tmp_path,
        problem__a="x = 1\n" * 450,
        problem__b=long_function(90) + f"def g({WIDE}): ...\n",
        problem__c=entry,
        kernels__sweeps="x = 1\n" * 500,
        kernels__a=long_function(200) + f"def g({WIDE}, i): ...\n",
    )
    assert size_complaints(package) == []


def test_the_length_of_solve_is_that_of_its_code(tmp_path):
    head = 'def solve(\n    a,\n):\n    """Solve.\n\n    Long.\n    """\n    # why\n\n'
    for lines, fits in ((SOLVE_LINES - 3, True), (SOLVE_LINES - 2, False)):
        package = made_up(tmp_path, solver__loop=head + "    x = 1\n" * lines)
        assert (size_complaints(package) == []) == fits
