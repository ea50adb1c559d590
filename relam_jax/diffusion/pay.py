"""What environments are paid for what their first camera shows under `--reward diffusion` and
`viper`, and under `keypoint_diffusion` for where their entities are:

    (1 − w) (mean − H) / std + w · novelty + s · success

H: entropy of the future after the last frames, or (viper) surprise at the newest (entropy.py); mean
and std: of H over the demonstrations; w, s: `novelty` and `sparse` of the config. An episode's
first frame stands for those before it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from relam_jax.diffusion.fit import DiffusionConfig, VideoModel, make_judge
from relam_jax.diffusion.novelty import Novelty, make_rnd

Shown = UInt8[np.ndarray, "N H W 3"] | Float[Array, "N P"] | Float[np.ndarray, "N P"]
"""Frames, or places of all views and entities."""


class VideoPay:
    """The last frames, as tokens, of N environments of S seeds, and each seed's novelty."""

    def __init__(
        self,
        model: VideoModel,
        config: DiffusionConfig,
        shown: Shown,
        num_seeds: int,
        seed: int,
        kind: str = "diffusion",
    ) -> None:
        """Of environments that show this at the start, seed-major; `kind`: of `NATS`."""
        judge = make_judge(config, kind)
        first = jnp.asarray(shown[:1])
        positions, code_dim = judge.codes(model, judge.tokens(model, first)).shape[1:]
        rnd = make_rnd(positions * code_dim)

        @jax.jit
        def begin(past: Array, mask: Array, shown: Array) -> Array:
            tokens = judge.tokens(model, shown)
            fresh = jnp.repeat(tokens[:, None], config.history + 1, axis=1)
            return jnp.where(mask[:, None, None], fresh, past)

        @jax.jit
        def advance(
            past: Array, novelty: Novelty, shown: Array, success: Array
        ) -> tuple[Array, Novelty, Array]:
            tokens = judge.tokens(model, shown)
            past = jnp.concatenate([past[:, 1:], tokens[:, None]], axis=1)
            codes = judge.codes(model, tokens).reshape(num_seeds, -1, positions * code_dim)
            novelty, new = jax.vmap(rnd.update)(novelty, codes)
            pay = (1 - config.novelty) * judge.reward(model, past)
            pay += config.novelty * new.ravel() + config.sparse * success
            return past, novelty, pay

        self._begin, self._advance = begin, advance
        keys = jax.random.split(jax.random.key(seed), num_seeds)
        self.novelty = jax.vmap(rnd.init)(keys)
        self.past = jnp.zeros((len(shown), config.history + 1, positions), jnp.int32)
        self.begin(np.ones(len(shown), bool), shown)

    def begin(self, mask: Bool[np.ndarray, " N"], shown: Shown) -> None:
        """Episodes start where `mask` is True, with what is `shown`."""
        self.past = self._begin(self.past, mask, shown)

    def pay(self, shown: Shown, success: Bool[np.ndarray, " N"]) -> Float[Array, " N"]:
        """For the step that led to what is `shown`; novelty learns from it."""
        self.past, self.novelty, pay = self._advance(
            self.past, self.novelty, shown, jnp.asarray(success, jnp.float32)
        )
        return pay

    def state(self) -> dict[str, Any]:
        """Everything that `set_state` needs to go on bit for bit."""
        return {"past": self.past, "novelty": self.novelty._asdict()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.past = jnp.asarray(state["past"])
        self.novelty = Novelty(**jax.tree.map(jnp.asarray, state["novelty"]))
