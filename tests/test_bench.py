"""The bench command: what it times, what it refuses to time, and what it writes.

Single trials are built by the suites' private functions, at sizes smaller than any case has.
"""

import importlib
import json
import math

import numba
import numpy as np
import pytest

import fastincentive as fi
from fastincentive import cli
from fastincentive.bench import case as bench_case
from fastincentive.bench import (
    cases,
    certificates,
    compiling,
    leader_twin,
    peers_best_response,
    peers_leader,
    report,
    roofline,
    run,
    suite_best_response,
    suite_methods,
    suite_problem,
    suite_scaling,
    suites,
    timing,
)
from fastincentive.bench.timing import FAILED, NOT_TIMED, OK, Contender, Trial
from fastincentive.cli import terminal
from fastincentive.errors import InputError


def bench(capsys, *args):
    """Return exit status, stdout and stderr of one run."""
    status = cli.main(["bench", *args])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return status, out, err


def counted(name, answer, calls):
    """A contender that counts its calls."""

    def call():
        calls[name] = calls.get(name, 0) + 1
        return answer

    return Contender(name, call)


def race(answers, rounds=4, **settings):
    """Race contenders with given answers; the right one is 1."""
    calls = {}
    contenders = [counted(name, answer, calls) for name, answer in answers.items()]
    trial = Trial(contenders, lambda answer: abs(answer - 1.0), 1e-10)
    return timing.race(trial, rounds, sample_seconds=1e-6, **settings), calls


# Timing


def test_a_wrong_peer_is_reported_and_never_timed():
    (ours, wrong, right), calls = race({"ours": 1.0, "wrong": 1.5, "right": 1.0})
    assert (ours.status, wrong.status, right.status) == (OK, FAILED, OK)
    assert calls["wrong"] == 1  # the certified call, and no other
    assert wrong.samples == []
    assert math.isnan(wrong.median)
    assert "exceeds" in wrong.message
    assert len(ours.samples) == len(right.ratios) == 4


def test_where_ours_is_wrong_nobody_is_timed():
    outcomes, calls = race({"ours": math.nan, "right": 1.0, "wrong": 0.0})
    assert [each.status for each in outcomes] == [FAILED, NOT_TIMED, FAILED]
    assert calls == {"ours": 1, "right": 1, "wrong": 1}
    found = report.record("suite", "case", 1e-10, outcomes, ())
    assert all("samples" not in each for each in found["contenders"])


def test_an_answer_that_goes_wrong_later_loses_its_samples():
    answers = iter([1.0, 1.0])
    late = Contender("late", lambda: next(answers, 2.0))
    trial = Trial([counted("ours", 1.0, {}), late], lambda answer: abs(answer - 1.0), 1e-10)
    ours, outcome = timing.race(trial, 3, sample_seconds=1e-9)
    assert (ours.status, outcome.status, outcome.samples) == (OK, FAILED, [])
    answers = iter([1.0, 1.0])
    trial = Trial([late, counted("peer", 1.0, {})], trial.certify, 1e-10)
    ours, peer = timing.race(trial, 3, sample_seconds=1e-9)
    assert (ours.status, peer.status, peer.samples) == (FAILED, NOT_TIMED, [])


def test_a_contender_that_breaks_has_failed():
    trial = Trial(
        [counted("ours", 1.0, {}), Contender("broken", lambda: 1 / 0)], lambda answer: 0.0, 1.0
    )
    _, broken = timing.race(trial, 1)
    assert broken.status == FAILED
    assert broken.message.startswith("ZeroDivisionError")


def test_contenders_take_turns():
    order = []
    contenders = [Contender(name, lambda name=name: order.append(name)) for name in "abc"]
    timing.race(Trial(contenders, lambda answer: 0.0, 1.0), 3, sample_seconds=1e-12)
    assert "".join(order) == "abc" + "abc" + "abcbcacab"  # warm-up, calibration, rounds


def test_a_slow_peer_leaves_when_its_budget_is_spent():
    (ours, peer), _ = race({"ours": 1.0, "peer": 1.0}, rounds=5, budget=0.0)
    assert len(ours.samples) == 5
    assert len(peer.samples) == len(peer.ratios) == 2
    assert peer.status == OK


def test_preparation_is_not_timed():
    import time

    slow = Contender("slow", lambda given: given, lambda: time.sleep(0.02) or 1.0)
    outcome = timing.race(Trial([slow], lambda answer: abs(answer - 1.0), 0.0), 1)[0]
    assert outcome.status == OK
    assert outcome.calls < 100  # preparing them must not take for ever either
    assert outcome.median < 0.01


def test_quartiles():
    assert timing.quartiles([4.0, 1.0, 2.0, 3.0, 5.0]) == (2.0, 3.0, 4.0)
    assert all(math.isnan(value) for value in timing.quartiles([]))


def test_race_checks_its_arguments():
    with pytest.raises(InputError, match="rounds: expected an integer >= 1, got 0"):
        race({"ours": 1.0}, rounds=0)
    with pytest.raises(InputError, match="trial: expected at least one contender"):
        timing.race(Trial([], lambda answer: 0.0, 1.0), 1)


# Cases


def test_checksums_refuse_other_inputs(monkeypatch):
    monkeypatch.setitem(cases.CHECKSUMS, "paper", "0" * 16)
    with pytest.raises(InputError, match="case paper: the inputs have checksum 99eb420352c0aaf6"):
        cases.build("paper")
    cases._robot.cache_clear()
    monkeypatch.setitem(cases.GRIDS, 6, "0" * 16)
    with pytest.raises(InputError, match="robot grid of size 6: the inputs have checksum"):
        cases.robot_grid(6)
    monkeypatch.setitem(cases.LEADERS, (2, 6), "0" * 16)
    with pytest.raises(InputError, match="leader case 2, 6"):
        cases.leader_case(2, 6, 0.95)
    monkeypatch.setitem(cases.MODEL_INPUTS, "example1", "0" * 16)
    with pytest.raises(InputError, match="model example1: the inputs have checksum"):
        cases.model("example1")
    with pytest.raises(InputError, match="model: expected one of example1"):
        cases.model("crowd-7")
    with pytest.raises(InputError, match="case: expected one of paper"):
        cases.build("another")
    with pytest.raises(InputError, match='kind: expected "near-greedy" or "random"'):
        cases.policy(6, "greedy")


def test_frozen_cases_are_as_described():
    mdp = cases.robot_grid(10, 0.99)
    assert (mdp.n_states, mdp.n_actions, mdp.discount) == (101, 4, 0.99)
    assert [np.sum(mdp.reward[:, 0] == value) for value in (10, 8, -5)] == [1, 2, 15]
    assert mdp.transition is cases.robot_grid(10).transition
    for kind in ("near-greedy", "random"):
        fi.Followers([mdp]).check_policies(cases.policy(10, kind)[None])
    moved = cases.moved_rewards(mdp, 10) - mdp.reward
    assert np.count_nonzero(moved) == 8
    assert moved.max() == pytest.approx(1e-3)
    stacked = cases.stacked(5, 6).followers
    assert (stacked.n, stacked.n_models) == (5, 1)
    problem, table, policies = cases.leader_case(3, 6, 0.95, "random")
    assert table.shape == (37, 37, 37)
    assert table[-1, -1, -1] == 0.0
    problem.followers.check_policies(policies)


# Certificates and peers


def test_certificates_see_what_is_wrong():
    mdp = cases.robot_grid(6)
    best = fi.best_response(mdp)
    actions = best.policy.argmax(axis=1)
    assert certificates.bellman_residual(mdp, best.values, actions) < 1e-12
    assert certificates.bellman_residual(mdp, best.values + 1e-6) > 1e-8
    assert certificates.bellman_residual(mdp, best.values, (actions + 1) % 4) > 1e-3
    policy = cases.policy(6, "random")
    values, _ = fi.evaluate_policy(mdp, policy)
    visits = fi.occupancy_measure(mdp, policy).sum(axis=1)
    residual = certificates.evaluation_residual
    assert residual(mdp, policy, values, visits) < 1e-12
    assert residual(mdp, policy, values, 0.05 * visits) > 1e-2
    assert residual(mdp, policy, values + 1e-6, visits) > 1e-8


def test_joint_values_of_three_followers():
    case = cases.leader_case(3, 6, 0.95)
    answers = [each.run() for each in peers_leader.joint_values(case, kronecker=False)]
    for values in answers:
        assert leader_twin.joint_residual(case, values) < 1e-12
        assert leader_twin.joint_residual(case, values * (1 + 1e-9)) > 1e-12
    starts = case.problem.followers.packed.initial
    value = np.einsum("abc,a,b,c->", answers[0], *starts)
    twin = leader_twin.twin(case)
    assert value == pytest.approx(twin.value, abs=1e-12)
    np.testing.assert_allclose(
        case.problem.leader_gradient(case.policies), twin.gradient, atol=1e-9
    )


def test_what_is_not_installed_is_skipped(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(peers_best_response, "import_module", missing)
    mdp = cases.robot_grid(6)
    found, skipped = bench_case.available(
        [
            lambda: Contender("ours", lambda: 0),
            lambda: peers_best_response.quantecon(mdp),
            lambda: peers_best_response.mdpsolver_policy_iteration(mdp),
            lambda: peers_best_response.mdpsolver_policy_iteration(mdp, "gs"),
            lambda: peers_best_response.jax_value_iteration(mdp),
        ]
    )
    assert [each.name for each in found] == ["ours"]
    assert len(skipped) == 3
    assert all("pip install 'fastincentive[bench]'" in line for line in skipped)


@pytest.mark.parametrize("form", ["dense", "scatter"])
@pytest.mark.parametrize("n", [2, 3])
def test_jax_differentiates_the_same_recursion(form, n):
    pytest.importorskip("jax")
    case = cases.leader_case(n, 6, 0.8, "random")
    expected = leader_twin.twin(case, horizon=40)
    one = peers_leader.jax_recursion(case, 40, form)
    assert leader_twin.leader_error(expected, one.read(one.run())) < 1e-12
    assert leader_twin.leader_error(expected, expected._replace(value=expected.value + 1)) > 0.01


@pytest.mark.parametrize(
    "build",
    [
        lambda: roofline._action_values(6),
        lambda: roofline._improvement(6),
        lambda: roofline._value_sweep(6),
        lambda: roofline._mass_sweep(6),
        lambda: roofline._forward_step(6),
        lambda: suite_problem._threads(2, 6),
        lambda: suite_scaling._large("evaluate", 6),
        lambda: suite_scaling._large("best-responses", 6),
        lambda: suite_scaling._many("evaluate", 2),
        lambda: suite_best_response._warm(6, 0.95),
    ],
)
def test_trials_certify_their_answers(build):
    trial = build()
    for each in trial.contenders:
        answer = each.run() if each.prepare is None else each.run(each.prepare())
        assert trial.certify(answer if each.read is None else each.read(answer)) <= trial.tolerance
        assert each.moved is None or each.moved > 6**2 * 8


def test_exponents():
    def point(place, seconds):
        return {"series": ("curve", place), "contenders": [{"quartiles": (0, seconds, 0)}]}

    records = [point(n, 3e-6 * n**1.5) for n in (2.0, 8.0, 32.0)]
    records.append({"series": ("alone", 2.0), "contenders": [{"quartiles": (0, 1.0, 0)}]})
    records.append({"series": ("curve", 64.0), "contenders": [{"status": FAILED}]})
    assert suite_scaling.exponents(records) == {"curve": pytest.approx(1.5)}


def test_copy_bandwidth_is_plausible():
    assert 1e8 < roofline.copy_bandwidth(32, 3) < 1e13


def test_kernel_names_are_read_from_the_sources():
    names = compiling.kernel_names()
    assert {"iterate_policies", "project_rows"} <= set(names)
    bellman = importlib.import_module("fastincentive.kernels.bellman")
    called = {name for name in bellman.__all__ if hasattr(getattr(bellman, name), "serial")}
    assert called
    assert called <= set(names)


# The command


def names_of(suite, profile):
    return [each.name for each in bench_case.chosen(suites.SUITES[suite](), profile)]


@pytest.mark.parametrize("suite", list(suites.SUITES))
def test_profiles_grow_and_names_differ(suite):
    smoke, regular, large = (names_of(suite, profile) for profile in bench_case.PROFILES)
    assert set(smoke) < set(regular) <= set(large)
    assert len(set(large)) == len(large)


@pytest.mark.parametrize(
    ("suite", "text"),
    [
        ("kernels", "grid-6/"),
        ("kernels", "project/74"),
        ("peers", "evaluate/grid-6/"),
        pytest.param("kernels", "2x37", marks=pytest.mark.slow),
        pytest.param("kernels", "iteration/paper", marks=pytest.mark.slow),
        pytest.param("solvers", "global-optimum", marks=pytest.mark.slow),
        pytest.param("methods", "example1", marks=pytest.mark.slow),
    ],
)
def test_suites(suite, text, capsys):
    status, out, err = bench(capsys, "--suite", suite, "--filter", text, "--rounds", "1")
    assert status == 0, out
    assert err == ""
    assert text in out
    assert "failed" not in out


@pytest.mark.parametrize(
    "text",
    [
        "best-response/grid-6/0.95",
        pytest.param("leader-gradient/2x37/0.95/near", marks=pytest.mark.slow),
    ],
)
@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="quantecon needs compiled kernels")
def test_other_packages_pass_the_certificates(text, tmp_path, capsys):
    path = tmp_path / "peers.json"
    args = ("--suite", "peers", "--filter", text, "--rounds", "2", "--json", str(path))
    status, out, _ = bench(capsys, *args)
    assert status == 0, out
    (only,) = json.loads(path.read_text())["results"]
    assert {each["status"] for each in only["contenders"]} == {OK}
    if not only["skipped"]:
        assert len(only["contenders"]) > 3
    assert all(f"skipped: {line}" in out for line in only["skipped"])


@pytest.mark.slow
def test_scaling_fits_an_exponent(capsys):
    args = ("--suite", "scaling", "--filter", "leader-value in n", "--rounds", "1")
    status, out, _ = bench(capsys, *args)
    assert status == 0, out
    assert "leader-value in n **" in out


@pytest.mark.slow
def test_a_kernel_is_set_against_copying(tmp_path, capsys):
    path = tmp_path / "sweep.json"
    args = ("--suite", "kernels", "--filter", "sweep", "--rounds", "2", "--json", str(path))
    status, out, _ = bench(capsys, *args)
    assert status == 0, out
    assert "GB/s, one thread" in out
    found = json.loads(path.read_text())
    for each in found["results"]:
        (only,) = each["contenders"]
        share = only["bytes_moved"] / only["quartiles"][1] / found["copy_bytes_per_second"]
        assert only["share_of_copy_bandwidth"] == pytest.approx(share)


def fake(monkeypatch, answers):
    """Make the solvers suite one case with given answers, the right one 1."""

    def build():
        contenders = [counted(name, answer, {}) for name, answer in answers.items()]
        return Trial(contenders, lambda answer: abs(answer - 1.0), 1e-10, ("other is missing",))

    monkeypatch.setitem(run.SUITES, "solvers", lambda: [bench_case.Case("case", "smoke", build)])


def test_json_holds_what_a_figure_needs(monkeypatch, tmp_path, capsys):
    fake(monkeypatch, {"ours": 1.0, "peer": 1.0, "wrong": 7.0, "undefined": math.nan})
    path = tmp_path / "out" / "bench.json"
    args = ("--suite", "solvers", "--rounds", "3", "--json", str(path))
    status, out, _ = bench(capsys, *args)
    assert status == 0
    assert "skipped: other is missing" in out
    found = json.loads(path.read_text())
    assert found["environment"]["versions"]["fastincentive"] == fi.__version__
    assert set(report.PEERS) == set(found["environment"]["peers"])
    assert {"cpu", "usable_cores"} <= set(found["environment"]["machine"])
    assert {"numba_threads", "OMP_NUM_THREADS"} <= set(found["environment"]["threads"])
    assert found["settings"] == {
        "suites": ["solvers"],
        "profile": "smoke",
        "rounds": 3,
        "filter": "",
    }
    (only,) = found["results"]
    ours, peer, wrong, undefined = only["contenders"]
    assert (only["suite"], only["case"], only["tolerance"]) == ("solvers", "case", 1e-10)
    assert len(ours["samples"]) == len(peer["ratios"]) == 3
    assert ours["ratios"] == [1.0, 1.0, 1.0]
    assert ours["quartiles"] == pytest.approx(timing.quartiles(ours["samples"]))
    assert wrong["status"] == undefined["status"] == FAILED
    assert undefined["error"] is None
    assert "samples" not in wrong
    assert found["failed"] == []


def test_a_failed_certificate_of_ours_is_exit_1(monkeypatch, capsys):
    fake(monkeypatch, {"ours": 1.1, "peer": 1.0})
    status, out, _ = bench(capsys, "--suite", "solvers")
    assert status == 1
    assert "FAILED its certificate, not timed: solvers/case" in out
    assert "not timed" in out


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    pytest.importorskip("tqdm")
    fake(monkeypatch, {"ours": 1.0})
    monkeypatch.setattr(terminal, "on_terminal", lambda: True)
    status, _, err = bench(capsys, "--suite", "solvers", "--rounds", "1")
    assert status == 0
    assert "solvers/case" in err
    _, _, err = bench(capsys, "--suite", "solvers", "--rounds", "1", "--no-progress")
    assert err == ""


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--suite", "others"], "invalid choice: 'others'"),
        (["--profile", "huge"], "invalid choice: 'huge'"),
        (["--suite", "solvers", "--rounds", "0"], "rounds: expected an integer >= 1, got 0"),
        (["--filter", "no such case"], "filter: expected text in the name of some case"),
    ],
)
def test_bad_input(args, message, capsys):
    status, out, err = bench(capsys, *args)
    assert (status, out) == (2, "")
    assert message in err


def test_durations():
    assert report.duration(1.5) == "1.5 s"
    assert report.duration(2.5e-3) == "2.5 ms"
    assert report.duration(3e-8) == "0.03 us"
    assert report.duration(math.nan) == ""


# Estimators


@pytest.mark.slow
def test_estimators_are_certified_before_they_are_timed(capsys):
    status, out, _ = bench(
        capsys,
        "--suite",
        "estimators",
        "--filter",
        "discount 1, reward to go, time",
        "--rounds",
        "1",
    )
    assert status == 0
    assert out.count(" ok ") == 2
    assert "variance ratio" in out


# Methods


def test_every_model_of_the_methods_suite_is_frozen():
    for name in cases.MODELS:
        assert isinstance(cases.model(name), fi.IncentiveProblem)


def answer_of(objective, unpaid, **facts):
    """What the record of one method holds."""
    told = {"objective": objective, "unpaid": unpaid, "as it ended": objective - 0.5}
    told |= {"largest gap": None, "iterations": 7, "evaluations": 0, "converged": True} | facts
    return {"status": OK, "message": "", "quartiles": (0.1, 0.2, 0.3), "facts": told}


def compared(*answers):
    """A record of the methods suite."""
    contenders = [{"name": f"m{k}"} | each for k, each in enumerate(answers)]
    return {"suite": "methods", "case": "model", "contenders": contenders}


def test_shares_are_of_the_best_gain_over_no_payments():
    record = compared(
        answer_of(-4.0, -6.0),
        answer_of(-2.0, -6.0, evaluations=99, converged=False, **{"as it ended": -math.inf}),
        answer_of(-7.0, -6.0, **{"largest gap": 2e-3}),
        {"status": FAILED, "message": "error 1 exceeds 0"},
    )
    shares = suite_methods.gain_shares([record, {"suite": "solvers", "contenders": []}])
    assert shares == {"model": {"m0": 0.5, "m1": 1.0, "m2": -0.25}}
    header, rows, align = suite_methods.method_rows(record)
    assert {len(row) for row in (header, *rows)} == {len(align)}
    assert rows[0] == ["m0", "-4.0000", "50 %", "-4.5000", "38 %", "", "0.2", "7 it"]
    assert rows[1][3:] == ["-inf", "", "", "0.2", "99 ev *"]
    assert rows[2][2:6] == ["-25 %", "-7.5000", "-38 %", "2e-03"]
    assert rows[3][1] == "error 1 exceeds 0"
    nothing = compared(answer_of(1.0, 1.0), answer_of(0.5, 1.0))
    assert suite_methods.gain_shares([nothing]) == {"model": {"m0": None, "m1": None}}


def test_a_method_is_added_by_one_line(monkeypatch, tmp_path, capsys):
    method = {"method": fi.ZerothOrder(evaluations=40)}
    monkeypatch.setattr(suite_methods, "METHODS", (("mine", method), ("twice", method)))
    path = tmp_path / "methods.json"
    args = ("--suite", "methods", "--filter", "example1", "--rounds", "1", "--json", str(path))
    status, out, err = bench(capsys, *args)
    assert (status, err) == (0, ""), out
    assert "share of the best gain" in out
    assert "SLOWER" not in out
    found = json.loads(path.read_text())
    assert found["gain_shares"] == {"example1": {"mine": 1.0, "twice": 1.0}}
    (only,) = found["results"]
    assert only["contenders"][0]["facts"]["evaluations"] == 37
