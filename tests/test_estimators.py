"""Gradients from trajectories: a twin in plain Python, no bias, the same bits on any threads."""

import importlib.util
import itertools
import warnings

import numba
import numpy as np
import pytest
from conftest import EXACT, ROUNDING, STANDARD_ERRORS, assert_close, random_game

import fastincentive as fi
from fastincentive import cli
from fastincentive.engines import Local
from fastincentive.errors import InputError
from fastincentive.problem import sampled_gradients as estimators
from fastincentive.problem.sampled_gradients import centred
from fastincentive.studies.audit import FORMS

WORD = 2**64
GOLDEN = 0x9E3779B97F4A7C15


def small_game(seed, discount=0.9, n=2, by_action=False, **settings):
    """A game whose followers are absorbed after some five steps."""
    rng = np.random.default_rng([seed, n])
    return random_game(rng, n, 4, 3, discount, by_action, closed=1, **settings)


# The twin


def mix(key):
    """SplitMix64's finaliser, in integers that do not wrap around by themselves."""
    key = (key ^ key >> 30) * 0xBF58476D1CE4E5B9 % WORD
    key = (key ^ key >> 27) * 0x94D049BB133111EB % WORD
    return key ^ key >> 31


class Draws:
    """The numbers in [0, 1) of one trajectory."""

    def __init__(self, seed, number):
        self.key = mix((mix(seed) + GOLDEN * number) % WORD)

    def choose(self, chances):
        self.key = (self.key + GOLDEN) % WORD
        u = (mix(self.key) >> 11) * 2.0**-53
        cumulative = np.cumsum(chances)
        cumulative[cumulative >= cumulative[-1]] = 1.0
        return int(np.searchsorted(cumulative, u, side="right"))


def trajectories(game, horizon, count, seed):
    """Joint states and actions of each trajectory: a list of pairs of tuples."""
    seed = int(np.random.SeedSequence([seed, 0]).generate_state(1, np.uint64)[0])
    found = []
    for number in range(count):
        draws = Draws(seed, number)
        states = [draws.choose(each.initial) for each in game.followers]
        steps = []
        for _ in range(horizon):
            actions, following = [], []
            for i, each in enumerate(game.followers):
                s = states[i]
                actions.append(draws.choose(game.policies[i, s]))
                following.append(draws.choose(each.transition[s, actions[-1]]))
            steps.append((tuple(states), tuple(actions)))
            states = following
        found.append(steps)
    return found


def twin_estimates(game, horizon, count, form, tau=None, by_action=False, closed=True):
    """Gradients (count, n, S, A) that each trajectory gives by itself, and its returns."""
    steps = trajectories(game, horizon, count, form.rng)
    joint = [
        [
            game.table[tuple(itertools.chain(*zip(s, a, strict=True))) if by_action else s]
            for s, a in each
        ]
        for each in steps
    ]
    earned = np.array(joint) * game.discount ** np.arange(horizon)
    total = earned.sum(axis=1)
    to_go = np.cumsum(earned[:, ::-1], axis=1)[:, ::-1]
    own = to_go if form.reward_to_go else np.repeat(total[:, None], horizon, axis=1)
    compared = own if form.baseline == "time" else np.repeat(total[:, None], horizon, axis=1)
    others = (compared.sum(axis=0) - compared) / (count - 1)
    weights = own - (others if form.baseline is not None else 0.0)
    gradients = np.zeros((count, *game.policies.shape))
    for b, each in enumerate(steps):
        for t, (states, actions) in enumerate(each):
            if closed and all(f.absorbing[s] for f, s in zip(game.followers, states, strict=True)):
                break  # nothing is earned any more: what they do there is no news
            for i, (s, a) in enumerate(zip(states, actions, strict=True)):
                policy = game.policies[i, s]
                score = np.zeros_like(policy)
                if tau is None:
                    score[a] = 1.0 / policy[a]
                    score -= score[game.available[i, s]].mean()
                    score[~game.available[i, s]] = 0.0
                else:
                    score[a] = 1.0
                    score = (score - policy) / tau
                gradients[b, i, s] += weights[b, t] * score
    return gradients, total


@pytest.mark.parametrize("tau", [None, 0.5])
@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("by_action", [False, True])
def test_estimates_are_those_of_plain_python(name, tau, by_action):
    game = small_game(1, by_action=by_action)
    form = fi.Reinforce(
        40, 6, baseline=FORMS[name].baseline, reward_to_go=FORMS[name].reward_to_go, rng=3
    )
    how = fi.Direct() if tau is None else fi.Softmax(tau)
    found, _ = form.estimate(game.problem(), game.policies, how)
    each, total = twin_estimates(game, 6, 40, form, tau, by_action)
    assert_close(found.gradient, each.mean(axis=0), EXACT)
    assert_close(found.standard_error, each.std(axis=0, ddof=1) / np.sqrt(40), 1e-7)
    assert found.value == pytest.approx(total.mean(), rel=1e-12)
    assert found.value_error == pytest.approx(total.std(ddof=1) / np.sqrt(40), rel=1e-9)
    assert found.horizon == 6


def test_long_rows_of_successors_are_searched_by_halving():
    rng = np.random.default_rng(0)
    game = random_game(rng, 1, 30, 2, 0.9)
    form = fi.Reinforce(30, 5, baseline=None, reward_to_go=False, rng=1)
    found, _ = form.estimate(game.problem(), game.policies)
    each, _ = twin_estimates(game, 5, 30, form, closed=False)
    assert_close(found.gradient, each.mean(axis=0), EXACT)


# No bias


def share_within(found, exact):
    """Share of the entries within four standard errors; entries without error must be exact."""
    off = np.abs(found.gradient - exact)
    return (off <= STANDARD_ERRORS * found.standard_error + 1e-12).mean()


@pytest.mark.parametrize("discount", [0.9, 1.0])
@pytest.mark.parametrize("how", [fi.Direct(), fi.Softmax(0.7)], ids=["direct", "softmax"])
@pytest.mark.parametrize("name", FORMS)
def test_estimates_have_no_bias(name, how, discount):
    form = FORMS[name]
    for seed in range(2):
        game = small_game(seed, discount, by_action=seed == 1)
        exact = game.gradient()
        if isinstance(how, fi.Softmax):
            exact = how.gradient(exact, game.policies)
        else:
            exact = centred(exact, game.available)
        form = fi.Reinforce(
            3000, baseline=FORMS[name].baseline, reward_to_go=FORMS[name].reward_to_go, rng=seed
        )
        found, _ = form.estimate(game.problem(), game.policies, how)
        assert share_within(found, exact) == 1.0
        assert abs(found.value - game.value()) <= STANDARD_ERRORS * found.value_error


def test_a_discounted_run_without_end_is_cut_where_the_exact_passes_cut_it():
    game = random_game(np.random.default_rng(4), 2, 4, 2, 0.8)
    problem = game.problem()
    found, _ = fi.Reinforce(2000).estimate(problem, game.policies)
    assert found.horizon == problem.forward(game.policies, measure=True).marginals.shape[0]
    assert found.steps == 2000 * found.horizon
    assert share_within(found, centred(game.gradient(), game.available)) == 1.0


def test_a_run_ends_when_everybody_is_absorbed():
    game = small_game(0, 1.0)
    found, _ = fi.Reinforce(500, 10_000).estimate(game.problem(), game.policies)
    assert found.steps < 500 * 60
    assert (found.effective_size <= 500).all()


def test_less_variance_with_reward_to_go_and_baselines():
    game = small_game(2)
    game.table[...] += 5.0  # a return far from 0, which a baseline takes away
    game.table[-1, -1] = 0.0
    audit = fi.audit_gradients(game.problem(), game.policies, trajectories=4000)
    variance = {name: audit.variance(name) for name in FORMS}
    assert variance["reward to go"] < variance["total return"]
    assert variance["total return, leave-one-out"] < variance["total return"]
    assert variance["reward to go, time"] < 0.5 * variance["total return"]


def test_a_mean_over_blocks_has_no_bias_either(monkeypatch):
    game = small_game(3)
    whole, _ = fi.Reinforce(2000, 20, baseline=None).estimate(game.problem(), game.policies)
    monkeypatch.setattr(estimators, "BLOCK", 20 * 2 * 300)
    parts, _ = fi.Reinforce(2000, 20, baseline=None).estimate(game.problem(), game.policies)
    assert_close(parts.gradient, whole.gradient, EXACT)
    assert parts.steps == whole.steps
    assert_close(parts.effective_size, whole.effective_size, 0.0)
    held, _ = fi.Reinforce(2000, 20).estimate(game.problem(), game.policies)
    assert share_within(held, centred(game.gradient(), game.available)) == 1.0


def test_exploration_estimates_at_the_mixed_policies():
    game = small_game(5, sparse=True, unavailable=0.0)
    form = fi.Reinforce(3000, exploration=0.2)
    mixed = 0.8 * game.policies + 0.2 / 3.0
    assert_close(form.sampled_policies(game.problem(), game.policies), mixed, ROUNDING)
    found, _ = form.estimate(game.problem(), game.policies)
    assert share_within(found, centred(game.gradient(mixed), game.available)) == 1.0


# The followers' own values


def test_followers_values_are_estimated_from_the_same_trajectories():
    game = small_game(6, unavailable=0.0)
    problem = game.problem()
    rewards = problem.rewards(np.full(1, 0.5))
    exact = problem.followers.evaluate(rewards, game.policies)
    _, found = fi.Reinforce(4000, followers="estimated").estimate(
        problem, game.policies, rewards=rewards
    )
    values = problem.followers.start_values(exact.values)
    assert (np.abs(found.start_values - values) <= STANDARD_ERRORS * found.standard_error).all()
    assert_close(found.values.visits[:, :-1], exact.visits[:, :-1], 0.1)
    assert_close(found.values.values[:, :-1], exact.values[:, :-1], 0.1)
    assert_close(found.values.q_values[:, :-1], exact.q_values[:, :-1], 0.2)


def test_states_that_were_not_met_tell_nothing():
    game = small_game(7, unavailable=0.0)
    for each in game.followers:
        each.transition[:, :, 0] = 0.0
        each.transition[:] /= each.transition.sum(axis=2, keepdims=True)
        each.initial[:] = [0.0, 0.0, 1.0, 0.0]
    problem = game.problem()
    rewards = problem.rewards(np.zeros(1))
    found, own = fi.Reinforce(50, followers="estimated").estimate(
        problem, game.policies, rewards=rewards
    )
    assert (found.effective_size[:, 0] == 0).all()
    assert (found.gradient[:, 0] == 0.0).all()
    assert (own.values.values[:, 0] == 0.0).all()


# Threads, runs, refusals


@pytest.mark.skipif(
    numba.config.NUMBA_NUM_THREADS < 2 or numba.config.DISABLE_JIT, reason="no second thread"
)
def test_the_same_bits_on_any_threads():
    problem = fi.models.paper_gridworld()
    policies = fi.best_response_policies(problem, np.zeros(2))
    policies = fi.Reinforce(exploration=0.2).sampled_policies(problem, policies)
    found = []
    before = numba.get_num_threads()
    for count in (1, 2):
        numba.set_num_threads(count)
        found.append(
            fi.Reinforce(40_000, followers="estimated").estimate(
                problem, policies, rewards=problem.rewards(np.ones(2))
            )
        )
    numba.set_num_threads(before)
    for one, two in zip(*found, strict=True):
        for name in one._fields:
            left, right = getattr(one, name), getattr(two, name)
            for a, b in zip(
                *((x if name == "values" else [x]) for x in (left, right)), strict=True
            ):
                assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def settings(seed=0, **others):
    return fi.BilevelAscent(
        gradient=fi.Reinforce(200, exploration=0.02, rng=seed, **others), max_iter=40
    )


def solve(problem, method, **others):
    """Solve without the search, and without the warning that noise never settles."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fi.ConvergenceWarning)
        return fi.solve(problem, method, refine=False, **others)


@pytest.mark.parametrize("followers", ["exact", "estimated"])
@pytest.mark.parametrize("how", [fi.Direct(), fi.Softmax(0.5)], ids=["direct", "softmax"])
def test_a_run_is_the_same_for_a_seed_and_can_be_resumed(tmp_path, how, followers):
    problem = small_game(8).problem()
    method = settings(followers=followers)
    one = solve(problem, method, parameterization=how)
    two = solve(problem, method, parameterization=how)
    other = solve(problem, settings(seed=1, followers=followers), parameterization=how)
    assert one.ascent.policies.tobytes() == two.ascent.policies.tobytes()
    assert one.ascent.policies.tobytes() != other.ascent.policies.tobytes()

    reports = []

    def stop(report):
        reports.append(report)
        if len(reports) == 20:
            raise StopIteration

    path = tmp_path / "run.npz"
    solve(problem, method, parameterization=how, checkpoint=path, callback=stop)
    resumed = solve(problem, method, parameterization=how, checkpoint=path)
    assert resumed.ascent.policies.tobytes() == one.ascent.policies.tobytes()


@pytest.mark.slow
def test_the_paper_grid_is_solved_from_trajectories():
    problem = fi.models.paper_gridworld()
    exact = fi.solve(problem, refine=False)
    for seed in range(2):
        method = fi.BilevelAscent(
            gradient=fi.Reinforce(2000, exploration=0.02, rng=seed), max_iter=400
        )
        found = solve(problem, method)
        assert found.objective >= 0.98 * exact.objective


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("trajectories", 1),
        ("horizon", 0),
        ("baseline", "mean"),
        ("followers", "some"),
        ("exploration", 1.0),
        ("rng", -1),
    ],
)
def test_bad_settings_are_named(name, value):
    with pytest.raises(InputError, match=f"{name}: expected"):
        fi.Reinforce(**{name: value})


def test_what_cannot_be_sampled_is_refused():
    game = small_game(0)
    with pytest.raises(InputError, match="gradient: expected an Exact"):
        fi.BilevelAscent(gradient="reinforce")
    types = fi.IncentiveProblem(
        fi.Followers([each.mdp() for each in game.followers], [2, 1]),
        fi.AdditiveReward([1.0, 0.0, 0.0, 0.0]),
        fi.Payments.at_states([[0], []]),
    )
    with pytest.raises(InputError, match="counts of 1 for sampled trajectories"):
        fi.Reinforce().estimate(types, game.policies)
    with pytest.raises(InputError, match="policies"):  # an action that does not exist
        fi.Reinforce().estimate(game.problem(), np.full_like(game.policies, 1.0 / 3.0))
    with pytest.raises(InputError, match="sampled where all followers are"):
        fi.solve(game.problem(), settings(), engine=Local(shards=2))


# The audit


def test_an_audit_says_how_far_estimates_are_off():
    game = small_game(9)
    audit = fi.audit_gradients(game.problem(), game.policies, trajectories=3000, rng=2)
    assert list(audit.estimates) == list(FORMS)
    assert_close(audit.exact, centred(game.gradient(), game.available), EXACT)
    assert audit.value == pytest.approx(game.value(), rel=1e-10)
    assert audit.difference < 1e-6
    assert all(audit.within(name) == 1.0 for name in FORMS)
    lines = str(audit).splitlines()
    assert all(any(line.startswith(name) for line in lines) for name in FORMS)
    assert "finite differences" in str(audit).lower()


def test_an_audit_of_some_forms_in_softmax_parameters():
    game = small_game(10)
    audit = fi.audit_gradients(
        game.problem(), None, fi.Softmax(0.5), ["reward to go, time"], trajectories=2000
    )
    assert list(audit.estimates) == ["reward to go, time"]
    own = {"mine": fi.Reinforce(baseline="leave-one-out")}
    assert list(fi.audit_gradients(game.problem(), None, None, own).estimates) == ["mine"]


def test_an_audit_refuses_unknown_forms():
    game = small_game(9)
    with pytest.raises(InputError, match="estimators: expected names among"):
        fi.audit_gradients(game.problem(), estimators=["best"])
    with pytest.raises(InputError, match="estimators: expected at least one, got none"):
        fi.audit_gradients(game.problem(), estimators={})


@pytest.mark.slow
def test_a_wrong_gradient_is_seen_by_an_audit(monkeypatch):
    game = small_game(9)
    problem = game.problem()
    right = problem.leader_gradient(game.policies)
    monkeypatch.setattr(
        type(problem), "leader_gradient", lambda self, policies: 2.0 * right, raising=True
    )
    audit = fi.audit_gradients(problem, game.policies, trajectories=30_000)
    assert audit.difference > 0.05
    assert audit.within("reward to go, time") < 0.8


def test_audit_command(capsys, tmp_path):
    arguments = ["audit", "--model", "example1", "--trajectories", "500"]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert "reward to go, time" in out
    assert "500 trajectories each" in out
    assert cli.main([*arguments, "--temperature", "0.5"]) == 0
    capsys.readouterr()
    assert cli.main([*arguments[:3], "--trajectories", "1"]) == 2
    assert "--trajectories: expected at least 2, got 1" in capsys.readouterr().err
    assert cli.main([*arguments, "--out", "errors.pdf"]) == 2
    assert "ends in .png" in capsys.readouterr().err
    if importlib.util.find_spec("matplotlib") is not None:
        figure = tmp_path / "errors.png"
        assert cli.main([*arguments, "--out", str(figure)]) == 0
        assert figure.read_bytes().startswith(b"\x89PNG")
