"""Dense tables contracted with label marginals: matrix products beside plain sums."""

from __future__ import annotations

import numpy as np
import pytest

from fastincentive.leader import contraction


def plain(table, marginals):
    """E[R] and E[R | label_i = l], one time and one follower after the other."""
    horizon, n, count = marginals.shape
    conditional = np.empty((horizon, n, count))
    for t in range(horizon):
        for i in range(n):
            held = np.moveaxis(table, i, 0)
            for j in reversed([j for j in range(n) if j != i]):
                held = held @ marginals[t, j]
            conditional[t, i] = held
    return (conditional[:, 0] * marginals[:, 0]).sum(axis=1), conditional


@pytest.mark.parametrize(
    ("n", "count"), [(1, 9), (2, 3), (2, 9), (3, 3), (3, 10), (4, 8), (5, 2), (6, 2), (7, 3)]
)
def test_tables_are_contracted(monkeypatch, n, count):
    monkeypatch.setattr(contraction, "SCRATCH", 400)  # several blocks of times
    rng = np.random.default_rng([n, count])
    table = rng.normal(size=(count,) * n)
    marginals = rng.dirichlet(np.ones(count), (41, n))
    expected, conditional = plain(table, marginals)
    each = contraction.conditional_rewards(table, marginals)
    np.testing.assert_allclose(each, conditional, atol=1e-13)
    np.testing.assert_allclose(contraction.expected_rewards(table, marginals), expected, atol=1e-13)
    for i in range(n):
        alone = contraction.one_conditional(table, marginals, i)
        np.testing.assert_allclose(alone, conditional[:, i], atol=1e-13)
