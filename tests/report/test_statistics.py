"""Intervals against what theory says, correlation against scipy."""

import numpy as np
import pytest
from scipy import stats

from relam_jax.report.statistics import (
    bootstrap_interval,
    outcomes,
    spearman,
    success_interval,
)


def test_bootstrap_of_one_seed_has_the_quantiles_of_the_binomial():
    success = np.arange(30)[None] < 12
    low, high = (stats.binom.ppf(q, 30, 0.4) / 30 for q in (0.025, 0.975))
    found = bootstrap_interval(success.astype(float))
    assert found.mean == pytest.approx(0.4)
    assert found.low == pytest.approx(low, abs=0.5 / 30)
    assert found.high == pytest.approx(high, abs=0.5 / 30)
    assert found == bootstrap_interval(success.astype(float)), "the same values, the same limits"


def test_bootstrap_resamples_episodes_within_each_seed():
    apart = np.repeat([[0.0], [1.0]], 20, axis=1)  # seeds differ, episodes of a seed do not
    assert bootstrap_interval(apart) == (0.5, 0.5, 0.5)
    mixed = np.tile([0.0, 1.0], (2, 10))
    width = bootstrap_interval(mixed)
    normal = 1.96 * np.sqrt(0.25 / mixed.size)
    assert width.low == pytest.approx(0.5 - normal, abs=0.03)
    assert width.high == pytest.approx(0.5 + normal, abs=0.03)


def test_success_without_exception_still_has_an_interval():
    exact = stats.binomtest(30, 30).proportion_ci(0.95, "exact")
    always = success_interval(np.ones((3, 10), bool))
    assert always == pytest.approx((1.0, exact.low, 1.0))
    assert success_interval(np.zeros((3, 10), bool)) == pytest.approx((0.0, 0.0, 1 - exact.low))


def test_outcomes_have_the_logged_shares():
    shares = np.array([0.0, 1 / 3, 0.233333, 1.0])  # as a CSV with six digits keeps them
    found = outcomes(shares, 30)
    assert found.sum(1).tolist() == [0, 10, 7, 30]


def test_spearman_equals_scipy_with_ties_and_is_nan_for_a_constant():
    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b = rng.integers(0, 6, 40).astype(float), rng.normal(size=40)
        assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert np.isnan(spearman(np.ones(5), np.arange(5.0)))
