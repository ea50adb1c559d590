"""The exploration bonus beside the entropy: random network distillation (Burda et al. 2019).

A predictor learns, from the frames that the policy sees, what a fixed random network says of a
frame's codes; where it errs, the frame is new. All functions work on one seed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from relam_jax.agents.networks import MLP

OUTPUTS = 32
"""Numbers that are predicted."""


class Novelty(NamedTuple):
    """All that learning changes, and the fixed target."""

    target: Any
    predictor: Any
    opt: optax.OptState
    count: Float[Array, ""]
    """frames seen."""
    mean: Float[Array, ""]
    """of the error over all of them."""
    spread: Float[Array, ""]
    """sum of squared deviations from it."""


class RND(NamedTuple):
    """The pure functions, for one seed."""

    init: Callable[[PRNGKeyArray], Novelty]
    update: Callable[[Novelty, Array], tuple[Novelty, Array]]
    """(state, codes (N, D)) → the state after one grad_step on them, and each one's error before
    it, in standard deviations of all errors so far (N)."""


class Features(nn.Module):
    """Target and predictor alike."""

    @nn.compact
    def __call__(self, codes: Float[Array, "N D"]) -> Float[Array, "N F"]:
        """A vector a frame."""
        return nn.Dense(OUTPUTS)(MLP((64,))(codes))


def make_rnd(code_size: int, learning_rate: float = 1e-4) -> RND:
    """Close over the sizes; Adam."""
    network, adam = Features(), optax.adam(learning_rate)
    apply: Callable[..., Any] = network.apply

    def init(key: PRNGKeyArray) -> Novelty:
        target, predictor = (
            network.init(k, jnp.zeros((1, code_size))) for k in jax.random.split(key)
        )
        zero = jnp.zeros(())
        return Novelty(target, predictor, adam.init(predictor), zero, zero, zero)

    def errors(predictor: Any, target: Any, codes: Array) -> Float[Array, " N"]:
        return ((apply(predictor, codes) - apply(target, codes)) ** 2).mean(-1)

    def update(state: Novelty, codes: Array) -> tuple[Novelty, Array]:
        def loss(predictor: Any) -> tuple[Array, Array]:
            error = errors(predictor, state.target, codes)
            return error.mean(), error

        (_, error), grads = jax.value_and_grad(loss, has_aux=True)(state.predictor)
        change, opt = adam.update(grads, state.opt)
        predictor = optax.apply_updates(state.predictor, change)
        # running mean and deviation (Chan et al. 1979)
        count, ahead = state.count + len(error), error.mean() - state.mean
        mean = state.mean + ahead * len(error) / count
        spread = state.spread + ((error - error.mean()) ** 2).sum()
        spread += ahead**2 * state.count * len(error) / count
        after = Novelty(state.target, predictor, opt, count, mean, spread)
        return after, error / (jnp.sqrt(spread / count) + 1e-8)

    return RND(init, update)
