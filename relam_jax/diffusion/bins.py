"""Places as tokens, for the keypoint-space form (ours): each coordinate of each entity in each view
is a token, the bin that it falls into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

NUM_BINS = 64
"""a coordinate."""
MARGIN = 0.25
"""Of a coordinate's range over the demonstrations, that the bins go on for on either side."""
LEAST = 0.02
"""Least range, image sides: what stands still in all demonstrations has bins too."""


class Bins(NamedTuple):
    """Where the bins of P coordinates begin and end, image sides; what lies outside is in the last
    one on its side."""

    low: Float[Array, " P"]
    high: Float[Array, " P"]


def make_bins(places: Sequence[Float[np.ndarray, "_ P"]]) -> Bins:
    """Of all that the demonstrations go through."""
    seen = np.concatenate(places)
    low, high = seen.min(0), seen.max(0)
    more = MARGIN * np.maximum(high - low, LEAST)
    return Bins(jnp.asarray(low - more), jnp.asarray(high + more))


def encode(bins: Bins, places: Float[Array, "B P"]) -> Int[Array, "B P"]:
    """Their tokens."""
    share = (places - bins.low) / (bins.high - bins.low)
    return jnp.clip(jnp.floor(share * NUM_BINS), 0, NUM_BINS - 1).astype(jnp.int32)


def centres(tokens: Int[Array, "*B P"]) -> Float[Array, "*B P 1"]:
    """Where their bins are between first and last: −1 … 1."""
    return (2 * tokens / (NUM_BINS - 1) - 1)[..., None]
