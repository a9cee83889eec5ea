"""``rng`` means one thing everywhere; ``seed``, its old name, is still accepted."""

import numpy as np
import pytest

from fastincentive._random import check_rng, renamed_seed, seed_of
from fastincentive.errors import InputError

BAD = [-1, 1.5, "3", True, [1, 2], np.float64(1.0), np.random.RandomState(0)]


@pytest.mark.parametrize("rng", [None, 0, 7, np.int64(3), 2**100, np.random.default_rng(0)])
def test_what_an_rng_is(rng):
    check_rng(rng)
    assert renamed_seed(rng, None) is rng


@pytest.mark.parametrize("rng", BAD, ids=repr)
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
    def public(rng=0, seed=None):
        return renamed_seed(rng, seed)

    with pytest.warns(DeprecationWarning, match="seed is now called rng") as caught:
        assert public(seed=4) == 4
    assert caught[0].filename == __file__
    with pytest.raises(InputError, match=r"^seed: expected none beside rng"):
        public(rng=1, seed=4)
    with pytest.raises(InputError, match=r"^seed: expected None, an integer"):
        public(seed=-4)
