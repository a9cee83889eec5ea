"""The command line: what is printed where, exit statuses, and the report of ``reproduce``."""

import importlib.util
import json
import re
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import fastincentive as fi
from fastincentive import _tables as tables
from fastincentive import cli
from fastincentive.cli import terminal
from fastincentive.errors import (
    ConvergenceWarning,
    InputError,
    MissingExtraError,
    TruncationWarning,
)
from fastincentive.models import MODELS, example1_objective
from fastincentive.reports import environment
from fastincentive.reproduce import report as reproduce_report
from fastincentive.reproduce.example1 import stationary_points
from fastincentive.reproduce.experiment import INITIALISATIONS, PAPER_TABLE_1, reproduce
from fastincentive.reproduce.rate import BARRIERS, STEPS

needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="needs the plot extra"
)


def run(capsys, *args):
    """Return exit status, stdout and stderr of one command, which must not show a traceback."""
    status = cli.main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return status, out, err


# Arguments


def test_version(capsys):
    assert run(capsys, "--version") == (0, f"fastincentive {fi.__version__}\n", "")


def test_help_lists_commands_and_models(capsys):
    status, out, _ = run(capsys, "--help")
    assert status == 0
    assert all(name in out for name in ("reproduce", "solve", "optimum", "pareto", "bench", "info"))
    status, out, _ = run(capsys, "solve", "--help")
    assert status == 0
    assert all(name in out for name in MODELS)


def test_the_number_of_followers(capsys):
    args = ["solve", "--model", "crowd", "--followers", "3", "--start", "best-response"]
    status, out, _ = run(capsys, *args)
    assert status == 0
    assert "crowd: 3 followers" in out
    for model, words in (
        ("example1", "--followers: expected none"),
        ("crowd", "n: expected a pos"),
    ):
        status, _, err = run(capsys, "solve", "--model", model, "--followers", "0")
        assert status == 2
        assert words in err


def test_python_m(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fastincentive", "--version"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("fastincentive", run_name="__main__")
    assert stop.value.code == 0
    assert fi.__version__ in capsys.readouterr().out


@pytest.mark.parametrize("argument", ["--version", "--help"])
def test_help_and_version_load_nothing_heavy(argument):
    code = f"""
import sys
sys.path.insert(0, {str(Path(fi.__file__).parents[1])!r})
from fastincentive.cli import main
assert main([{argument!r}]) == 0
heavy = [name for name in ("numba", "numpy", "scipy", "matplotlib") if name in sys.modules]
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


BAD = [
    ([], "required: COMMAND"),
    (["simulate"], "invalid choice: 'simulate'"),
    (["solve"], "required: --model"),
    (["solve", "--model", "chess"], "choose from 'paper-gridworld', 'example1'"),
    (["solve", "--model", "example1", "--weight", "heavy"], "invalid float value"),
    (["solve", "--model", "example1", "--weight", "-1"], "cost_weight: expected a finite number"),
    (["solve", "--model", "example1", "--weight", "nan"], "cost_weight: expected a number"),
    (["solve", "--model", "example1", "--max-iter", "0"], "max_iter: expected a positive"),
    (["solve", "--model", "example1", "--payments", "nan"], "initial_payments: expected a finite"),
    (["solve", "--model", "example1", "--payments", "1", "2", "3"], "shape (2,), got (3,)"),
    (["solve", "--model", "example1", "--payments", "-1", "2"], "got -1.0 at payment 0"),
    (["solve", "--model", "example1", "--temperature", "1"], "needs --parameterization softmax"),
    (
        ["solve", "--model", "example1", "--parameterization", "softmax", "--temperature", "0"],
        "temperature: expected a number > 0",
    ),
    (["solve", "--model", "random", "--rng", "-1"], "--rng: expected an integer >= 0, got -1"),
    (
        ["solve", "--model", "example1", "--method", "regime-ascent", "--max-iter", "5"],
        "--max-iter needs --method bilevel-ascent",
    ),
    (
        ["solve", "--model", "example1", "--method", "regime-ascent", "--no-refine"],
        "--no-refine needs --method bilevel-ascent",
    ),
    (["optimum", "--model", "example1", "--rng", "x"], "invalid int value"),
    (["pareto", "--model", "example1", "--weights", "1", "--budgets", "1"], "not allowed with"),
    (["pareto", "--model", "example1", "--weights", "-1"], "weights: expected finite numbers"),
    (["pareto", "--model", "example1", "--budgets", "nan"], "budgets: expected finite numbers"),
    (["pareto", "--model", "example1", "--weight", "1"], "--weight needs --budgets"),
    (["pareto", "--model", "example1", "--out", "front.pdf"], "ends in .png, got front.pdf"),
    (["reproduce", "--parameterization", "hard"], "invalid choice: 'hard'"),
]


@pytest.mark.parametrize(("args", "message"), BAD, ids=[" ".join(args) for args, _ in BAD])
def test_bad_input(args, message, capsys):
    status, out, err = run(capsys, *args)
    assert status == 2
    assert out == ""
    assert message.replace("'", "") in err.replace("'", "")  # Python versions quote differently


def test_interrupted(monkeypatch, capsys):
    def interrupt(**_):
        raise KeyboardInterrupt

    monkeypatch.setitem(MODELS, "example1", interrupt)
    status, out, err = run(capsys, "solve", "--model", "example1")
    assert (status, out, err) == (130, "", "fastincentive solve: interrupted\n")


# solve


def test_what_finds_no_room_is_bad_input(capsys):
    status, out, err = run(capsys, "solve", "--model", "crowd", "--followers", 10**10)
    assert (status, out) == (cli.BAD_INPUT, "")
    assert "a crowd of 10000000000 different followers needs" in err


def test_solve_prints_payments_values_and_status(capsys):
    status, out, err = run(capsys, "solve", "--model", "example1", "--start", "best-response")
    expected = fi.solve(fi.models.example1(), initial_policies="best-response")
    assert (status, err) == (0, "")
    for text in (
        "example1: 2 followers, 4 states, 2 actions, 2 payments, w = 1",
        "converged",
        f"follower 0, state 2  {expected.payments[0]:.6f}",
        f"follower 1, state 1  {expected.payments[1]:.6f}",
        f"{expected.objective:.6f}",
        f"{expected.pessimistic_objective:.6f}",
        f"{expected.ascent.leader_value:.6f}",
        f"{expected.expected_spend:.6f}",
        f"refinement  adds {expected.refinement.improvement:.6f} to the objective",
        "before refinement",
        "nominal spend",
        "stationarity K",
    ):
        assert text in out
    assert "upper bound" not in out
    assert max(map(len, out.splitlines())) <= 110


def test_solve_without_refinement(capsys):
    args = ["--model", "example1", "--start", "best-response", "--no-refine"]
    status, out, _ = run(capsys, "solve", *args)
    assert status == 0
    assert "refinement" not in out
    found = json.loads(run(capsys, "solve", *args, "--json")[1])
    expected = fi.solve(fi.models.example1(), initial_policies="best-response", refine=False)
    assert found["refinement"] is None
    assert found["objective"] == expected.objective
    assert set(found["payments"][0]) == {"where", "posted", "ascent"}


def test_solve_by_regimes(capsys):
    status, out, err = run(capsys, "solve", "--model", "example1", "--method", "regime-ascent")
    assert (status, err) == (0, "")
    assert "plan" in out
    assert "RegimeAscent" in out
    assert "ascent's last iterate" not in out
    args = ["--model", "example1", "--method", "regime-ascent", "--json"]
    found = json.loads(run(capsys, "solve", *args)[1])
    assert found["ascent"] is None
    assert found["settings"]["parameterization"] is None
    assert [each["posted"] for each in found["payments"]] == [1.0, 0.0]
    assert found["objective"] == 4.0


def test_solve_certifies(capsys):
    args = ["--model", "example1", "--method", "regime-ascent", "--certify"]
    status, out, err = run(capsys, "solve", *args)
    assert (status, err) == (0, "")
    found = json.loads(run(capsys, "solve", *args, "--json")[1])
    assert found["upper_bound"] >= found["objective"] - 1e-9
    assert found["optimality_gap"] == max(found["upper_bound"] - found["objective"], 0.0)
    assert f"upper bound  {found['upper_bound']:.6f}, gap {found['optimality_gap']:.6f}" in out


@pytest.mark.slow
def test_expected_spend_as_cost_is_reported(monkeypatch, capsys):
    def patient(cost_weight=0.1):
        plain = fi.models.random_problem(2, 6, 2, rng=3, n_payments=1)
        return fi.IncentiveProblem(
            plain.followers,
            fi.JointReward(np.random.default_rng(3).random((6, 6))),
            fi.Payments.from_index(plain.payments.index),
            leader_discount=0.9,
            cost_weight=cost_weight,
            cost=fi.ExpectedSpend(),
        )

    monkeypatch.setitem(MODELS, "random", patient)
    args = ["--model", "random", "--start", "best-response"]
    _, out, _ = run(capsys, "solve", *args)
    found = json.loads(run(capsys, "solve", *args, "--json")[1])
    assert found["cost"] == pytest.approx(found["expected_spend"], rel=1e-12)
    assert found["pessimistic_cost"] == pytest.approx(found["pessimistic_expected_spend"])
    assert "cost" not in found["refinement"]
    assert f"{found['cost']:.6f}" in out


def test_solve_json_is_all_of_stdout(capsys):
    args = ["--start", "best-response", "--weight", "0.5", "--payments", "1.5", "0.5", "--json"]
    status, out, err = run(capsys, "solve", "--model", "example1", *args)
    found = json.loads(out)
    expected = fi.solve(
        fi.models.example1(cost_weight=0.5),
        initial_payments=[1.5, 0.5],
        initial_policies="best-response",
    )
    assert (status, err) == (0, "")
    assert found["success"] is True
    assert found["status"] == "converged"
    assert found["iterations"] == expected.nit
    assert found["settings"]["cost_weight"] == 0.5
    assert [each["posted"] for each in found["payments"]] == expected.payments.tolist()
    assert [each["ascent"] for each in found["payments"]] == expected.ascent.payments.tolist()
    for name in (
        "leader_value",
        "cost",
        "objective",
        "nominal_spend",
        "expected_spend",
        "pessimistic_value",
        "pessimistic_objective",
    ):
        assert found[name] == getattr(expected, name)
    before = [each["before_refinement"] for each in found["payments"]]
    assert before == expected.refinement.payments.tolist()
    for name in ("leader_value", "objective", "pessimistic_objective", "improvement", "complete"):
        assert found["refinement"][name] == getattr(expected.refinement, name)
    assert found["upper_bound"] is None
    assert found["optimality_gap"] is None
    assert found["follower_gaps"] == expected.follower_gaps.tolist()
    for name in ("leader_value", "objective", "feasibility", "stationarity"):
        assert found["ascent"][name] == getattr(expected.ascent, name)
    assert found["ascent"]["follower_gaps"] == expected.ascent.follower_gaps.tolist()


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_not_converged_is_exit_1_and_no_warning(form, capsys):
    args = ["--model", "example1", "--max-iter", "1", "--start", "best-response", *form]
    status, out, err = run(capsys, "solve", *args)
    assert (status, err) == (1, "")
    assert "stopped at max_iter" in out
    if form:
        assert json.loads(out)["status"] == "max_iter"


def test_other_warnings_go_to_stderr_once(monkeypatch, capsys):
    def warn_twice(problem, method, *_, **__):
        for _ in range(2):
            warnings.warn("cut after 7 steps", TruncationWarning, stacklevel=2)
        warnings.warn("not there yet", ConvergenceWarning, stacklevel=2)
        return original(problem, method, initial_policies="best-response")

    original = fi.solve
    monkeypatch.setattr(fi, "solve", warn_twice)
    status, out, err = run(capsys, "solve", "--model", "example1", "--json")
    assert status == 0
    json.loads(out)
    assert err == "fastincentive solve: warning: cut after 7 steps\n"


def test_infinities_become_null(monkeypatch, capsys):
    def infinite(*_, **__):
        solution = original(fi.models.example1(), initial_policies="best-response")
        object.__setattr__(solution, "pessimistic_value", -np.inf)
        object.__setattr__(solution, "pessimistic_objective", np.nan)
        return solution

    original = fi.solve
    monkeypatch.setattr(fi, "solve", infinite)
    found = json.loads(run(capsys, "solve", "--model", "example1", "--json")[1])
    assert found["pessimistic_value"] is None
    assert found["pessimistic_objective"] is None


@pytest.fixture
def seen(monkeypatch):
    """Record what ``solve`` is called with, and answer with one iteration."""
    calls = []
    original = fi.solve

    def record(problem, method, parameterization, **settings):
        calls.append({"problem": problem, "method": method, "policy": parameterization, **settings})
        short = fi.BilevelAscent(max_iter=1)
        return original(problem, short, initial_policies="best-response", refine=False)

    monkeypatch.setattr(fi, "solve", record)
    return calls


def test_settings_arrive(seen, monkeypatch, capsys):
    monkeypatch.setattr(terminal, "on_terminal", lambda: True)
    args = "--parameterization softmax --temperature 0.2 --max-iter 7 --payments 3 --progress"
    run(capsys, "solve", "--model", "example1", *args.split())
    run(capsys, "solve", "--model", "example1", "--parameterization", "softmax")
    first, second = seen
    assert first["policy"] == fi.Softmax(0.2)
    assert first["method"] == fi.BilevelAscent(max_iter=7)
    assert first["initial_payments"] == 3.0
    assert "initial_policies" not in first
    assert first["progress"] is True
    assert second["policy"] == fi.Softmax()
    assert second["method"] is None
    assert second["progress"] is False
    assert (second["refine"], second["certify"]) == (True, False)
    args = "--no-refine --certify --method bilevel-ascent --start best-response"
    run(capsys, "solve", "--model", "example1", *args.split())
    assert (seen[2]["refine"], seen[2]["certify"]) == (False, True)
    assert seen[2]["method"] == fi.BilevelAscent()
    assert seen[2]["initial_policies"] == "best-response"


def test_installed():
    assert terminal.installed("numpy")
    assert not terminal.installed("no_such_package_1")


def test_no_bar_unless_on_a_terminal(seen, capsys):
    run(capsys, "solve", "--model", "example1", "--progress")
    assert seen[0]["progress"] is False


def test_rng_of_random_models(seen, capsys):
    for args in ([], ["--rng", "0"], ["--rng", "1"]):
        assert run(capsys, "solve", "--model", "random", *args)[2] == ""
    rewards = [call["problem"].followers.rewards for call in seen]
    np.testing.assert_array_equal(rewards[0], rewards[1])
    assert (rewards[0] != rewards[2]).all()


def test_seed_is_the_old_name_of_rng(seen, capsys):
    for name in ("--rng", "--seed"):
        _, _, err = run(capsys, "solve", "--model", "random", name, "4")
    assert err == "fastincentive solve: warning: --seed is now called --rng\n"
    rewards = [call["problem"].followers.rewards for call in seen]
    np.testing.assert_array_equal(rewards[0], rewards[1])


def test_rng_of_models_without_chance_is_noted(seen, capsys):
    _, _, err = run(capsys, "solve", "--model", "gridworld", "--rng", "5")
    assert "nothing in gridworld is random" in err


@pytest.mark.slow
def test_long_lists_of_payments_are_cut(capsys, monkeypatch):
    def many(cost_weight=0.1):
        return fi.models.random_problem(1, 30, 2, rng=0, n_payments=25, cost_weight=cost_weight)

    monkeypatch.setitem(MODELS, "random", many)
    args = ["--model", "random", "--max-iter", "1", "--start", "best-response", "--no-refine"]
    _, out, _ = run(capsys, "solve", *args)
    assert "and 5 more (--json shows all)" in out
    assert len(json.loads(run(capsys, "solve", *args, "--json")[1])["payments"]) == 25


def test_a_bar_without_tqdm_names_the_extra(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "on_terminal", lambda: True)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    args = ["--model", "example1", "--start", "best-response", "--progress"]
    status, out, err = run(capsys, "solve", *args)
    assert (status, out) == (2, "")
    assert "pip install 'fastincentive[progress]'" in err


# optimum and pareto


def test_optimum(capsys):
    status, out, err = run(capsys, "optimum", "--model", "example1")
    expected = fi.global_optimum(fi.models.example1())
    assert (status, err) == (0, "")
    for text in (
        "example1: 2 followers, 4 states, 2 actions, 2 payments, w = 1",
        f"follower 0, state 2  {expected.payments[0]:.6f}",
        f"upper bound     {expected.bound:.6f}",
        f"runner-up       {expected.runner_up.objective:.6f}",
        f"= {expected.combinations} combinations",
        "all of them",
        "adds nothing that the search found",
    ):
        assert text in out
    status, out, err = run(capsys, "optimum", "--model", "example1", "--weight", "0.1", "--json")
    found = json.loads(out)
    expected = fi.global_optimum(fi.models.example1(cost_weight=0.1))
    assert (status, err) == (0, "")
    assert found["settings"]["cost_weight"] == 0.1
    assert [each["posted"] for each in found["payments"]] == expected.payments.tolist()
    for name in ("leader_value", "cost", "objective", "bound", "gap", "combinations", "complete"):
        assert found[name] == getattr(expected, name)
    assert found["mixing"]["helped"] is expected.mixing.helped


def test_optimum_refuses_what_it_cannot_certify(monkeypatch, capsys):
    def tariff(cost_weight=0.1):
        problem = fi.models.random_problem(2, 4, 2, rng=0, n_payments=1, cost_weight=cost_weight)
        index = np.full(problem.followers.shape, -1)
        index[:, 0] = 0
        return fi.IncentiveProblem(
            problem.followers,
            fi.JointReward(np.ones((4, 4))),
            fi.Payments.from_index(index),
            leader_discount=0.9,
        )

    monkeypatch.setitem(MODELS, "random", tariff)
    status, out, err = run(capsys, "optimum", "--model", "random")
    assert (status, out) == (2, "")
    assert "payments shared between followers" in err


def test_pareto(capsys):
    status, out, err = run(capsys, "pareto", "--model", "example1", "--weights", "3", "0.5")
    front = fi.pareto(fi.models.example1(), [0.5, 3.0])
    assert (status, err) == (0, "")
    assert out.startswith(f"{front}\n\n2 points in ")
    args = ["--budgets", "1", "--weight", "0", "--json"]
    status, out, err = run(capsys, "pareto", "--model", "example1", *args)
    found = json.loads(out)
    assert (status, err) == (0, "")
    assert (found["weights"], found["budgets"]) == ([0.0], [1.0])
    assert (found["leader_values"], found["costs"]) == ([5.0], [1.0])
    assert found["efficient"] == [True]


@needs_matplotlib
def test_pareto_draws(capsys, tmp_path, monkeypatch):
    file = tmp_path / "new" / "front.png"
    args = ["--model", "example1", "--weights", "1", "--out", file]
    status, out, err = run(capsys, "pareto", *args)
    assert (status, err) == (0, "")
    assert file.read_bytes().startswith(b"\x89PNG")
    assert f"Figure: {file}" in out
    json.loads(run(capsys, "pareto", *args, "--json")[1])
    monkeypatch.setattr(terminal, "installed", lambda name: False)
    status, out, err = run(capsys, "pareto", *args)
    assert (status, out) == (2, "")
    assert "pip install 'fastincentive[plot]'" in err


# info


def test_info(capsys):
    status, out, err = run(capsys, "info")
    assert (status, err) == (0, "")
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in out.splitlines())
    assert rows["fastincentive"] == fi.__version__
    assert rows["numpy"] == np.__version__
    for name in ("python", "scipy", "numba", "llvmlite", "matplotlib", "tqdm", "dask", "cpu"):
        assert rows[name]
    assert int(rows["numba threads"]) >= 1
    assert int(rows["usable cores"]) >= 1
    assert rows["numba threading layer"]


def test_info_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(environment, "EXTRAS", {"no-such-package-1": "plot"})
    _, out, _ = run(capsys, "info")
    assert "not installed (pip install 'fastincentive[plot]')" in out


def test_environment_without_proc(monkeypatch):
    read = Path.read_text

    def missing(self, *args, **settings):
        if str(self).startswith(("/proc", "/sys")):
            raise FileNotFoundError
        return read(self, *args, **settings)

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    found = environment.environment()
    assert found["machine"]["cpu"]
    assert found["machine"]["usable_cores"] == found["machine"]["cores"]


# Tables


def test_text_table_aligns():
    text = tables.text_table(
        ["name", "x", "note"], [["a", "1.25", "yes"], ["bcdef", "2", ""]], "lrl"
    )
    assert text.splitlines() == ["name      x  note", "a      1.25  yes", "bcdef     2"]


def test_markdown_table():
    text = tables.markdown_table(["name", "x"], [["a", "1"]], "lr")
    assert text.splitlines() == ["| name | x |", "| --- | ---: |", "| a | 1 |"]


def test_small_numbers():
    assert [tables.small(0.0), tables.small(-0.0), tables.small(-1.26e-7)] == ["0", "0", "-1.3e-07"]


# Example 1


def slope(x, name):
    """Projected slope of f_m along each axis: at x = 0 only what leads inside counts."""
    step = 1e-6
    found = []
    for unit in np.eye(2):
        ahead = example1_objective(x + step * unit, name)
        if x @ unit < step:
            found.append(max(0.0, float(ahead - example1_objective(x, name)) / step))
        else:
            found.append(float(ahead - example1_objective(x - step * unit, name)) / (2 * step))
    return np.array(found)


def test_softmax_stationary_points():
    points = stationary_points("softmax")
    kinds = [point["kind"] for point in points]
    assert (kinds.count("maximum"), kinds.count("saddle"), kinds.count("minimum")) == (4, 4, 1)
    directions = np.array([(np.cos(t), np.sin(t)) for t in np.linspace(0.0, 2.0 * np.pi, 33)])
    for point in points:
        x = np.array(point["payments"])
        assert point["objective"] == example1_objective(x, "softmax")
        assert np.abs(slope(x, "softmax")).max() < 1e-6
        around = x + 1e-3 * directions
        change = example1_objective(around[(around >= 0).all(axis=1)], "softmax")
        change = change - point["objective"]
        assert point["kind"] == (
            "maximum" if (change < 0).all() else "minimum" if (change > 0).all() else "saddle"
        )


def test_direct_stationary_points_are_the_papers():
    points = stationary_points("direct")
    assert [point["payments"] for point in points] == [[0, 0], [0, 2], [1, 0], [1, 2]]
    assert [point["objective"] for point in points] == [0.0, 3.0, 4.0, 3.0]


def test_stationary_points_check_their_arguments():
    with pytest.raises(InputError, match="temperature"):
        stationary_points("softmax", 0.3)
    with pytest.raises(InputError, match="parameterization"):
        stationary_points("hard")


# reproduce


def small_grid(slips):
    """Nine cells in place of the paper's 36: quick even as plain Python."""
    cells = [[(2, 2)], [(0, 2)]]
    return fi.models.gridworld("S.L .F. G.L", slip=slips, starts=[(0, 0)], paid=cells)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Three iterations from each initialisation: all parts of the report, none converged."""
    pytest.importorskip("matplotlib")
    out = tmp_path_factory.mktemp("new") / "results"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastincentive.reproduce.experiment.paper_gridworld", small_grid)
        few = {"replications": 2, "rate_iterations": 20}
        return out, reproduce(out, ["direct"], method=fi.BilevelAscent(max_iter=3), **few)


def check_report(out, result, names):
    """Check that files, JSON and report agree with what was returned."""
    assert json.loads((out / "table1.json").read_text(encoding="utf-8")) == result
    assert sorted(path.name for path in out.iterdir()) == sorted(result["files"])
    report = (out / "report.md").read_text(encoding="utf-8")
    for file in result["files"]:
        if file.endswith(".png"):
            assert f"]({file})" in report
            assert (out / file).read_bytes().startswith(b"\x89PNG")
    assert "does not print the robots' slip probabilities" in report
    assert fi.__version__ in report
    for row in PAPER_TABLE_1:
        assert f"| paper | {row['initialisation']} | {row['payments'][0]:.4f}" in report
    rows = [(run["parameterization"], run["initialisation"]) for run in result["runs"]]
    assert rows == [(name, number) for name in names for number in INITIALISATIONS]
    for run in result["runs"]:
        start = f"| {run['parameterization']} | {run['initialisation']} |"
        assert report.count(start) == 3  # last iterate, recovered and refined
        assert f"{run['recovered']['objective']:.4f}" in report
        assert run["recovered"]["feasibility"] >= -1e-9
        assert run["recovered"]["pessimistic_objective"] <= run["recovered"]["objective"] + 1e-9
        assert run["refined"]["objective"] >= run["recovered"]["objective"] - 1e-9
        assert run["refined"]["objective"] <= result["optimum"]["bound"] + 1e-9
    best = result["optimum"]
    check_replications(result, names)
    check_rate(result)
    assert best["complete"]
    assert f"| optimum |  | {best['payments'][0]:.4f} | {best['payments'][1]:.4f} |" in report
    assert f"the best of {best['combinations']} pairs of best responses" in report
    return report


def check_replications(result, names):
    """Bands are of the runs, and runs are not all the same."""
    assert list(result["replications"]) == names
    for found in result["replications"].values():
        for column in found["ends"].values():
            assert len(column["runs"]) == found["count"]
            assert np.isclose(column["mean"], np.mean(column["runs"]))
            assert min(column["runs"]) <= column["quantiles"][0] <= column["quantiles"][1]
        assert len(set(found["ends"]["objective"]["runs"])) > 1


def check_rate(result):
    """Least K falls, under the bound with its own constant."""
    assert {(row["barrier"], row["step"]) for row in result["rate"]} == {
        (barrier, step) for barrier in BARRIERS for step in STEPS
    }
    for row in result["rate"]:
        k, least = np.array(row["iterations"], float), np.array(row["least"])
        assert (np.diff(least) <= 0.0).all()
        bound = row["constant"] * (np.sqrt(row["step"]) + 1.0 / np.sqrt(row["step"] * k))
        assert (least <= bound * (1.0 + 1e-12)).all()


@needs_matplotlib
def test_reproduce_reports_what_did_not_converge(short):
    out, result = short
    report = check_report(out, result, ["direct"])
    assert {run["status"] for run in result["runs"]} == {"max_iter"}
    assert not any(run["success"] for run in result["runs"])
    assert report.count("stopped at max_iter before the tolerance was met") == 3
    assert result["settings"]["slips"] == [0.1, 0.05]
    assert result["settings"]["method"]["max_iter"] == 3
    assert result["seconds"]["total"] > 0.0


@needs_matplotlib
def test_reproduce_prints_the_table(short, monkeypatch, capsys, tmp_path):
    _, result = short
    calls = []

    def stored(*args, **settings):
        calls.append((args, settings))
        return result

    monkeypatch.setattr("fastincentive.reproduce.experiment.reproduce", stored)
    status, out, err = run(capsys, "reproduce", "--out", tmp_path, "--parameterization", "softmax")
    assert (status, err) == (0, "")
    assert out.startswith(reproduce_report.summary(result))
    assert "max_iter" in out
    assert str(tmp_path / "report.md") in out
    assert "After the search over regimes" in out
    assert max(map(len, reproduce_report.summary(result).splitlines())) <= 110
    numbers = {"replications": 10, "rate_iterations": 600}
    assert calls == [((str(tmp_path), ("softmax",)), {**numbers, "progress": False})]
    # On a terminal there is a bar, but not without tqdm, nor when it is not wanted.
    monkeypatch.setattr(terminal, "on_terminal", lambda: True)
    monkeypatch.setattr(terminal, "installed", lambda name: True)
    run(capsys, "reproduce")
    run(capsys, "reproduce", "--no-progress")
    monkeypatch.setattr(terminal, "installed", lambda name: False)
    run(capsys, "reproduce")
    assert [settings["progress"] for _, settings in calls] == [False, True, False, False]
    assert calls[1][0] == ("results", ("direct", "softmax"))


@needs_matplotlib
def test_reproduce_shows_a_bar(tmp_path, capsys, monkeypatch):
    tqdm = pytest.importorskip("tqdm")
    parts, notes = [], []

    class Bar(tqdm.tqdm):
        def set_description_str(self, desc=None, refresh=True):
            parts.append(desc)

        def set_postfix_str(self, s="", refresh=True):
            notes.append(s)

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    monkeypatch.setattr("fastincentive.reproduce.experiment.paper_gridworld", small_grid)
    method = fi.BilevelAscent(max_iter=20, tolerance=1e-12)
    few = {"replications": 1, "rate_iterations": 20}
    reproduce(tmp_path, ["softmax"], method=method, progress=True, **few)
    capsys.readouterr()
    assert parts[0].startswith("compiling")
    assert "softmax, initialisation 3" in parts
    assert "softmax, replication 1" in parts
    assert "rate, gap barrier, step 0.1" in parts
    assert parts[-1] == "report"
    assert any(note.startswith("iteration 20, objective") for note in notes)


@needs_matplotlib
def test_reproduce_checks_its_arguments(tmp_path, monkeypatch, capsys):
    for names in ([], ["direct", "hard"]):
        with pytest.raises(InputError, match="parameterizations: expected some of direct, softmax"):
            reproduce(tmp_path, names)
    with pytest.raises(InputError, match="replications: expected a positive integer"):
        reproduce(tmp_path, replications=0)
    with pytest.raises(InputError, match="rate_iterations: expected an integer of at least 20"):
        reproduce(tmp_path, rate_iterations=10)
    file = tmp_path / "file"
    file.write_text("")
    status, out, err = run(capsys, "reproduce", "--out", file)
    assert (status, out) == (2, "")
    assert f"out: expected a directory to write in, got {file}" in err
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(MissingExtraError, match=r"fastincentive\[progress\]"):
        reproduce(tmp_path, progress=True)


def test_reproduce_without_matplotlib_names_the_extra(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, out, err = run(capsys, "reproduce", "--out", tmp_path / "new")
    assert (status, out) == (2, "")
    assert "pip install 'fastincentive[plot]'" in err
    assert not (tmp_path / "new").exists()


@needs_matplotlib
@pytest.mark.slow  # ten seconds, but an hour as plain Python
def test_reproduce_all(tmp_path, capsys):
    status, out, err = run(capsys, "reproduce", "--out", tmp_path)
    assert (status, err) == (0, "")
    result = json.loads((tmp_path / "table1.json").read_text(encoding="utf-8"))
    check_report(tmp_path, result, ["direct", "softmax"])
    for found in result["runs"]:
        assert found["ascent"]["largest_gap"] <= 1e-3
        assert found["status"] in out
        assert found["success"] == (found["status"] == "converged")
    assert result["seconds"]["runs"] + result["seconds"]["figures"] < 60.0
    # Once K has begun to fall it falls as fast as the theorem says, where phi follows the gap.
    slopes = {(row["barrier"], row["step"]): row["slope"] for row in result["rate"]}
    assert max(slopes["gap", step] for step in (0.003, 0.01)) <= -0.5
    assert max(row["constant"] for row in result["rate"]) < 20.0
