"""Followers known only as simulators: models from samples, and payments that allow for errors."""

import tracemalloc
import warnings

import numpy as np
import pytest
from conftest import ROUNDING, assert_close

import fastincentive as fi
from fastincentive.errors import FewSamplesWarning, InputError
from fastincentive.followers.estimates import CONCENTRATIONS, concentrations


class Chain:
    """Walk right to the end of a chain, which ends the episode; 'stay' is the other action."""

    def __init__(self, length=4, slip=0.2):
        self.n_states, self.n_actions, self.slip = length, 2, slip

    def reset(self, rng):
        self.rng, self.state = rng, 0
        return 0

    def step(self, action):
        moves = action == 1 and self.rng.random() >= self.slip
        self.state += moves
        ended = self.state == self.n_states - 1
        return self.state, -1.0 if not ended else 5.0, ended


def true_chain(length=4, slip=0.2, discount=0.9):
    """The chain's own model, Sink last."""
    transition = np.zeros((length + 1, 2, length + 1))
    reward = np.zeros((length + 1, 2))
    for s in range(length - 1):
        transition[s, 0, s] = 1.0
        transition[s, 1, s], transition[s, 1, s + 1] = slip, 1.0 - slip
        reward[s] = -1.0
    reward[length - 2, 1] = -slip + 5.0 * (1.0 - slip)
    transition[length - 1 :, :, length] = 1.0
    return fi.TabularMDP(transition, reward, discount, 0)


def lake(mdp):
    """The leader wants the walker at (0, 2), (1, 2) and (3, 2); it may pay in the corner beyond."""
    worth = np.zeros(17)
    worth[[2, 6, 14]] = 0.5, 0.5, 1.0
    return fi.IncentiveProblem(
        [mdp],
        fi.AdditiveReward(worth),
        fi.Payments.at_states([[2, 3, 6]]),
        leader_discount=0.99,
        cost_weight=0.5,
        cost=fi.ExpectedSpend(),
    )


def cliff(mdp):
    """The leader loses for each step beside the cliff; it may pay in the two rows above."""
    worth = np.zeros(49)
    worth[24:36] = -1.0
    index = np.full((1, 49, 4), -1)
    index[0, :12], index[0, 12:24] = 0, 1
    return fi.IncentiveProblem(
        [mdp],
        fi.AdditiveReward(worth),
        fi.Payments.from_index(index),
        leader_discount=0.99,
        cost_weight=0.5,
        cost=fi.ExpectedSpend(),
    )


# Estimates


def test_an_estimate_tends_to_the_model():
    found = fi.estimate_mdp(Chain(), 20_000, 0.9)
    true = true_chain()
    assert found.samples == found.visits.sum() == 20_000
    assert found.mdp.n_states == 5
    assert found.visits[:3].min() > 500
    assert_close(found.mdp.dense_transition(), true.dense_transition(), 0.03)
    assert_close(found.mdp.reward, true.reward, 0.2)
    assert_close(found.mdp.initial, true.initial, ROUNDING)
    again = fi.estimate_mdp(Chain(), 20_000, 0.9)
    assert np.array_equal(again.mdp.dense_transition(), found.mdp.dense_transition())


def test_episodes_that_are_cut_are_no_end():
    with pytest.warns(
        FewSamplesWarning, match=r"2 pairs were never tried .* \(state 2, action 0\)"
    ):
        found = fi.estimate_mdp(Chain(slip=0.0), 300, 0.9, max_steps=2)
    assert found.episodes >= 150
    # State 3 is never reached in two steps, and nothing leads to the Sink.
    transition = found.mdp.dense_transition()
    assert transition[:2, :, 4].max() == 0.0
    assert found.visits[2:].sum() == 0


def test_episodes_that_end_where_they_begin():
    class Ring(Chain):
        """Around and back to where the episode began, where it ends."""

        def step(self, action):
            self.state = (self.state + 1) % self.n_states
            return self.state, 1.0, self.state == 0

    found = fi.estimate_mdp(Ring(), 100, 0.9)
    dense = found.mdp.dense_transition()
    assert dense[0, 0, 1] == 1.0
    assert dense[3, 0, 4] == 1.0
    assert fi.best_response(found.mdp).values[0] == pytest.approx((1.0 - 0.9**4) / 0.1)


def test_a_simulator_of_many_states_takes_little_memory():
    chain = Chain(length=3000)
    chain.n_actions = 4
    with pytest.warns(FewSamplesWarning):
        fi.estimate_mdp(chain, 1, 0.9)
    tracemalloc.start()
    with pytest.warns(FewSamplesWarning):
        fi.estimate_mdp(chain, 1, 0.9)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e7  # a table of all pairs and successors has 288 MB


def test_pairs_that_were_never_tried_are_worth_least():
    with pytest.warns(FewSamplesWarning, match="1 pairs were never tried and 1 only once"):
        found = fi.estimate_mdp(Chain(slip=0.0), 1, 0.9)
    tried = found.visits > 0
    assert tried.sum() == 1
    untried = found.mdp.dense_transition()[0, int(np.argmin(tried[0]))]
    assert untried[4] == 1.0
    assert found.mdp.reward[0].tolist() == [-1.0, -1.0]


def test_draws_vary_as_estimates_do():
    policy = np.zeros((5, 2))
    policy[:, 1] = 1.0

    def value(mdp):
        return float(mdp.initial @ fi.evaluate_policy(mdp, policy)[0])

    estimates = [fi.estimate_mdp(Chain(slip=0.5), 400, 0.9, rng=seed) for seed in range(40)]
    spread = np.std([value(each.mdp) for each in estimates])
    rng = np.random.default_rng(0)
    drawn = [np.std([value(each.resample(rng)) for _ in range(40)]) for each in estimates[:6]]
    assert 0.7 < np.mean(drawn) / spread < 1.4


def test_uncertainty_of_feasibility():
    found = fi.estimate_mdp(Chain(slip=0.5), 300, 0.9)
    problem = fi.IncentiveProblem(
        [found.mdp],
        fi.AdditiveReward([0.0, 0.0, 1.0, 0.0, 0.0]),
        fi.Payments.at_pairs(np.arange(5)[None, :, None] + np.zeros((1, 1, 2)) == 2),
        leader_discount=0.9,
    )
    payments = np.array([0.0, 0.0])
    policies = fi.best_response_policies(problem, payments)
    seen = fi.model_uncertainty(problem, payments, policies, [found], draws=50)
    assert (seen.feasibility <= 1e-12).all()
    known = fi.model_uncertainty(problem, payments, policies, [None], draws=3)
    assert np.ptp(known.objective) == 0.0
    at = problem.evaluate(payments, policies)
    assert known.objective[0] == pytest.approx(at.objective)
    assert known.answered[0] == pytest.approx(at.objective)
    assert abs(seen.objective.mean() - at.objective) < 3.0 * seen.objective.std()
    # A policy that is no best response loses in nearly every draw.
    worse = np.eye(2)[np.ones((1, 5), int) - np.argmax(policies, axis=2)]
    lost = fi.model_uncertainty(problem, payments, worse, [found], draws=20)
    assert lost.feasibility.mean() < -0.1
    assert "feasibility" in str(seen)


# What few samples leave open


class Row(Chain):
    """Cells in a row, left and right; acting in the last one ends the episode and pays."""

    def __init__(self, length, noise=0.0):
        super().__init__(length, 0.0)
        self.noise = noise

    def step(self, action):
        ended = self.state == self.n_states - 1
        self.state = min(max(self.state + (1 if action else -1), 0), self.n_states - 1)
        return self.state, 5.0 * ended - 1.0 + self.noise * self.rng.normal(), ended


def start_values(estimate, guess, draws=60):
    rng = np.random.default_rng(1)
    drawn = [estimate.resample(rng, guess) for _ in range(draws)]
    return np.array([mdp.initial @ fi.best_response(mdp).values for mdp in drawn])


def test_the_concentration_is_that_of_ewens_formula():
    counts, kinds = np.array([1, 4, 4, 2]), 7
    likely = []
    for a in CONCENTRATIONS:
        # The j-th sample is new with chance a / (a + j); 7 of 11 were.
        steps = [1.0 / (a + j) for n in counts for j in range(n)]
        likely.append(a**kinds * np.prod(steps))
    assert_close(concentrations(counts, kinds), np.array(likely) / np.sum(likely))
    certain, chancy = concentrations(np.full(50, 20), 50), concentrations(np.full(50, 20), 150)
    assert certain @ CONCENTRATIONS < 0.01 < 0.3 < chancy @ CONCENTRATIONS < 1.5


@pytest.mark.filterwarnings("ignore::fastincentive.FewSamplesWarning")
def test_what_was_hardly_tried_is_uncertain():
    few = fi.estimate_mdp(Row(12), 12, 0.9)
    assert len(few.seldom(0)) > 0
    many = fi.estimate_mdp(Row(12), 3000, 0.9)
    assert len(many.seldom()) == 0
    for guess in ("anywhere", "alike"):
        assert start_values(few, guess).std() > 0.3
        assert start_values(many, guess).std() < 0.05
    true = float(fi.best_response(many.mdp).values[0])
    assert abs(start_values(many, "anywhere").mean() - true) < 0.02


@pytest.mark.filterwarnings("ignore::fastincentive.FewSamplesWarning")
def test_guesses_of_what_was_never_tried():
    found = fi.estimate_mdp(Row(12), 12, 0.9)
    rng = np.random.default_rng(0)
    untried = found.seldom(0)
    alike = np.mean([found.resample(rng, "alike").dense_transition() for _ in range(60)], axis=0)
    for s, a in untried[(untried[:, 0] > 0) & (untried[:, 1] == 1)]:
        assert alike[s, a].argmax() == s + 1
    lured = found.resample(rng, "lure", target=7)
    s, a = untried[0]
    assert lured.dense_transition()[s, a, 7] == pytest.approx(1.0)
    assert lured.reward[s, a] > found.triples.rewards.max()
    with pytest.raises(InputError, match="guess: expected one of 'anywhere', 'alike', 'lure'"):
        found.resample(rng, "nowhere")


@pytest.mark.filterwarnings("ignore::fastincentive.FewSamplesWarning")
def test_draws_at_discount_1_end():
    found = fi.estimate_mdp(Row(6), 8, 1.0)
    rng = np.random.default_rng(0)
    for guess in ("anywhere", "alike", "lure"):
        mdp = found.resample(rng, guess)
        assert np.flatnonzero(mdp.transition.absorbing).tolist() == [6]
        assert_close(mdp.dense_transition().sum(axis=2), np.ones((7, 2)))


def test_rewards_that_vary_are_uncertain():
    found = fi.estimate_mdp(Row(3, noise=2.0), 400, 0.9)
    rng = np.random.default_rng(0)
    rewards = np.array([found.resample(rng).reward[0, 1] for _ in range(200)])
    assert rewards.std() == pytest.approx(2.0 / np.sqrt(found.visits[0, 1]), rel=0.3)


def random_game(seed, states=6):
    """A random follower as a simulator, and what makes a problem of a model of it."""
    rng = np.random.default_rng([seed, states])
    true = fi.TabularMDP(
        rng.dirichlet(np.full(states, 0.3), (states, 3)), rng.normal(size=(states, 3)), 0.9, 0
    )

    class Drawn(Chain):
        def __init__(self):
            self.n_states, self.n_actions, self.law = states, 3, true.dense_transition()

        def step(self, action):
            before, self.state = (
                self.state,
                int(self.rng.choice(states, p=self.law[self.state, action])),
            )
            return self.state, true.reward[before, action], False

    worth = np.append(rng.normal(size=states), 0.0)

    def build(mdp):
        return fi.IncentiveProblem(
            [mdp],
            fi.AdditiveReward(worth[: mdp.n_states]),
            fi.Payments.at_states([[0, 1, 2]], upper=5.0),
            leader_discount=0.9,
            cost_weight=0.5,
        )

    return Drawn(), build, build(true)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::fastincentive.FewSamplesWarning")
@pytest.mark.parametrize("samples", [20, 60])
def test_promises_hold(samples):
    held = []
    for seed in range(25):
        simulator, build, true = random_game(seed)
        estimate = fi.estimate_mdp(simulator, samples, 0.9, max_steps=25, rng=seed)
        found, seen = fi.solve_estimated(
            build(estimate.mdp), [estimate], (1e-2,), 40, method=fi.RegimeAscent()
        )
        earned = fi.stackelberg_values(true, found.payments).pessimistic.objective
        held.append(seen.promise <= earned)
    # Of 25 seeds 95 % hold but for four standard errors.
    assert np.mean(held) > 0.95 - 4.0 * np.sqrt(0.95 * 0.05 / 25)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "build", "discount", "samples"),
    [("FrozenLake-v1", lake, 0.97, 500), ("CliffWalking-v1", cliff, 0.95, 100)],
)
def test_promises_of_black_boxes_hold(name, build, discount, samples):
    gymnasium = pytest.importorskip("gymnasium")
    env = gymnasium.make(name)
    table = build(fi.mdp_from_gymnasium(env, discount))
    for seed in range(3):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            estimate = fi.estimate_mdp(env, samples, discount, rng=seed)
            problem = table.replace(followers=[estimate.mdp])
            found, seen = fi.solve_estimated(problem, [estimate], (1e-2,), method=fi.RegimeAscent())
        hardly = [each for each in said if each.category is FewSamplesWarning]
        assert len(hardly) == (2 if len(estimate.seldom()) else 0)
        earned = fi.stackelberg_values(table, found.payments).pessimistic.objective
        assert seen.promise <= earned
        assert seen.answered.std() > 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 0}, "samples: expected a positive integer"),
        ({"max_steps": 0}, "max_steps: expected a positive integer"),
        ({"discount": 1.5}, "discount: expected"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(InputError, match=message):
        fi.estimate_mdp(Chain(), **({"samples": 10} | change))


def test_bad_simulators_are_named():
    with pytest.raises(InputError, match="got object without reset"):
        fi.estimate_mdp(object())
    lost = Chain()
    lost.step = lambda action: (9, 0.0, False)
    with pytest.raises(InputError, match=r"states 0..3, got 9 at the step from state 0, action"):
        fi.estimate_mdp(lost)
    endless = Chain()
    endless.step = lambda action: (1, np.nan, False)
    with pytest.raises(InputError, match="finite rewards"):
        fi.estimate_mdp(endless)
    problem = lake(true_lake())
    with pytest.raises(InputError, match="estimates: expected 1, one for each follower, got 0"):
        fi.model_uncertainty(problem, 0.0, fi.best_response_policies(problem, 0.0), [])
    with pytest.raises(InputError, match="draws: expected"):
        fi.model_uncertainty(problem, 0.0, fi.best_response_policies(problem, 0.0), [None], 1)
    with pytest.raises(InputError, match="margins: expected at least one"):
        fi.solve_estimated(problem, [None], margins=())


def true_lake():
    """A model of the lake's size."""
    return fi.TabularMDP.from_successors(
        np.zeros((17, 4, 1), int), np.ones((17, 4, 1)), np.zeros((17, 4)), initial=0
    )


def test_other_followers_in_the_same_problem():
    problem = fi.models.paper_gridworld()
    slippery = fi.models.paper_gridworld(slips=(0.2, 0.2))
    other = problem.replace(followers=slippery.followers)
    policies = fi.best_response_policies(slippery, 1.0)
    assert_close(
        other.evaluate(1.0, policies).objective, slippery.evaluate(1.0, policies).objective
    )
    assert problem.followers is not other.followers
    with pytest.raises(InputError, match="followers: expected those of Followers"):
        problem.replace(followers=[true_lake()])


# Gymnasium


def test_spaces_that_are_not_discrete_are_refused():
    gymnasium = pytest.importorskip("gymnasium")
    with pytest.raises(InputError, match="a Discrete observation_space, got Box"):
        fi.estimate_mdp(gymnasium.make("CartPole-v1"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")
@pytest.mark.parametrize(
    ("name", "build", "discount", "seeds"),
    [("FrozenLake-v1", lake, 0.97, 2), ("CliffWalking-v1", cliff, 0.95, 1)],
)
def test_black_boxes_are_solved_like_their_tables(name, build, discount, seeds):
    gymnasium = pytest.importorskip("gymnasium")
    env = gymnasium.make(name)
    table = build(fi.mdp_from_gymnasium(env, discount))
    exact = fi.solve(table, initial_payments=0.1)
    for seed in range(seeds):
        estimate = fi.estimate_mdp(env, 50_000, discount, rng=seed)
        problem = table.replace(followers=[estimate.mdp])
        found, seen = fi.solve_estimated(problem, [estimate], initial_payments=0.1)
        # What the payments earn from the true follower, ties against the leader.
        true = fi.stackelberg_values(table, found.payments).pessimistic.objective
        assert abs(true - exact.objective) <= 0.05 * abs(exact.objective)
        assert abs(seen.feasibility.mean()) < 0.01
