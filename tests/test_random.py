"""``rng`` means one thing everywhere; ``seed``, its old name, is still accepted.

``_random`` is the package's own, and is asked directly what it takes.
"""

import numpy as np
import pytest

import fastincentive as fi
from fastincentive._checks import checked
from fastincentive._random import check_rng, renamed_seed, seed_of
from fastincentive.errors import InputError

BAD = [-1, 1.5, "3", True, [1, 2], np.float64(1.0), np.random.SeedSequence(0)]


@pytest.mark.parametrize("rng", [None, 0, 7, np.int64(3), 2**100, np.random.default_rng(0)])
def test_what_an_rng_is(rng):
    check_rng(rng)
    assert renamed_seed(rng, None) is rng


@pytest.mark.parametrize("rng", BAD, ids=lambda rng: type(rng).__name__)
def test_bad_rngs_are_refused(rng):
    with pytest.raises(InputError, match=r"^rng: expected None, an integer >= 0 or a numpy"):
        check_rng(rng)
    with pytest.raises(InputError, match=r"^rng: expected"):
        renamed_seed(rng, None)
    with pytest.raises(InputError, match=r"^numbers: expected"):
        check_rng(rng, "numbers")


def test_seeds():
    assert seed_of(5) == 5
    assert type(seed_of(np.int64(5))) is int
    first, second = (seed_of(np.random.default_rng(1)) for _ in range(2))
    assert first == second
    rng = np.random.default_rng(1)
    assert [seed_of(rng), seed_of(rng)] == [first, seed_of(_moved_on(1))]
    assert seed_of(None) != seed_of(None)
    assert 0 <= seed_of(None) < 2**63


def _moved_on(seed):
    rng = np.random.default_rng(seed)
    seed_of(rng)
    return rng


def test_the_old_name_warns_where_the_function_is_called():
    @checked
    def public(rng=0, seed=None):
        return renamed_seed(rng, seed)

    with pytest.warns(DeprecationWarning, match="seed is now called rng") as caught:
        assert public(seed=4) == 4
    assert caught[0].filename == __file__
    with pytest.raises(InputError, match=r"^seed: expected none beside rng"):
        public(rng=1, seed=4)
    with pytest.raises(InputError, match=r"^seed: expected None, an integer"):
        public(seed=-4)


class Coin:
    """Two states, of which a coin decides."""

    n_states, n_actions = 2, 2

    def reset(self, rng):
        self.rng = rng
        return 0

    def step(self, action):
        return int(self.rng.integers(2)), float(action), bool(self.rng.random() < 0.1)


@pytest.fixture(scope="module")
def problem():
    return fi.models.random_problem(2, 3, 2, rng=0)


def estimated(_, **settings):
    return fi.estimate_mdp(Coin(), 100, 0.9, **settings).mdp.dense_transition()


def uncertain(_, **settings):
    mdps = [fi.estimate_mdp(Coin(), 100, 0.9) for _ in range(2)]
    drawn = fi.IncentiveProblem(
        [each.mdp for each in mdps],
        fi.AdditiveReward([0.0, 1.0, 0.0]),
        fi.Payments.at_states([[1], [1]]),
        leader_discount=0.9,
    )
    policies = fi.best_response_policies(drawn, 0.0)
    return fi.model_uncertainty(drawn, 0.0, policies, mdps, 4, **settings).objective


def audited(problem, **settings):
    audit = fi.audit_gradients(problem, estimators=["total return"], trajectories=20, **settings)
    return audit.estimates["total return"].gradient


@pytest.mark.parametrize("function", [estimated, uncertain, audited])
def test_every_function_takes_all_kinds(function, problem):
    def call(**settings):
        return function(problem, **settings)

    np.testing.assert_array_equal(call(), call(rng=0))
    with pytest.warns(DeprecationWarning, match="seed is now called rng"):
        old = call(seed=5)
    np.testing.assert_array_equal(old, call(rng=5))
    assert (old != call(rng=None)).any()
    first, second = (call(rng=np.random.default_rng(1)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    rng = np.random.default_rng(1)
    call(rng=rng)
    assert (call(rng=rng) != first).any()
    for bad in (-1, 1.5):
        with pytest.raises(InputError, match=r"^rng: expected"):
            call(rng=bad)


def test_models_and_studies_refuse_what_is_no_rng(problem):
    for build in (fi.models.random_problem, fi.models.crowd, fi.models.demand_response):
        with pytest.raises(InputError, match=r"^rng: expected"):
            build(rng=-1)
    with pytest.raises(InputError, match=r"^rng: expected"):
        fi.solve_estimated(problem, [None, None], rng=1.5)
    with pytest.raises(InputError, match=r"^rng: expected"):
        fi.sweep(problem, [{}, {}], rng="3")
