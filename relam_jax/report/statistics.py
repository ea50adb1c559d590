"""Intervals and rank correlation for the report, in numpy alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

LEVEL = 0.95
RESAMPLES = 2000


class Interval(NamedTuple):
    """A mean and the limits of its 95 % confidence interval."""

    mean: float
    low: float
    high: float


def bootstrap_interval(values: Float[np.ndarray, "S P"], seed: int = 0) -> Interval:
    """Percentile bootstrap of the mean over S seeds × P episodes, stratified by seed.

    Episodes are drawn anew within each seed, as many as there were: the interval is that of these
    S policies, over episodes. The same values and `seed` give the same limits.
    """
    seeds, episodes = values.shape
    draws = np.random.default_rng(seed).integers(episodes, size=(RESAMPLES, seeds, episodes))
    means = values[np.arange(seeds)[:, None], draws].mean((1, 2))
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def success_interval(success: Bool[np.ndarray, "S P"], seed: int = 0) -> Interval:
    """As `bootstrap_interval`; where all ended alike, the exact binomial limits (Clopper, Pearson).

    The bootstrap of 30 successes of 30 is the single point 100 %, which says nothing about the next
    episode.
    """
    limit = ((1 - LEVEL) / 2) ** (1 / success.size)
    if success.all():
        return Interval(1.0, limit, 1.0)
    if not success.any():
        return Interval(0.0, 0.0, 1.0 - limit)
    return bootstrap_interval(success.astype(float), seed)


def outcomes(shares: Float[np.ndarray, " S"], episodes: int) -> Bool[np.ndarray, "S P"]:
    """Successes with these shares a seed: what a log of shares still knows of the episodes."""
    return np.arange(episodes) < np.round(np.asarray(shares)[:, None] * episodes)


def spearman(a: Float[np.ndarray, " N"], b: Float[np.ndarray, " N"]) -> float:
    """Rank correlation, ties sharing their mean rank; NaN where `a` or `b` is constant."""
    ranks = []
    for x in (a, b):
        _, group, count = np.unique(x, return_inverse=True, return_counts=True)
        if len(count) < 2:
            return float("nan")
        ranks.append((np.cumsum(count) - (count + 1) / 2)[group])
    return float(np.corrcoef(*ranks)[0, 1])
