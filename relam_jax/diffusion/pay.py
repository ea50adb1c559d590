"""What environments are paid under `--reward diffusion` and `viper` for what their first camera
shows:

    (1 − w) (mean − H) / std + w · novelty + s · success

H: entropy of the future after the last frames, or surprise at the newest (entropy.py); mean and
std: of H over the demonstrations; w, s: `novelty` and `sparse` of the config. An episode's first
frame stands for those before it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from relam_jax.diffusion.fit import DiffusionConfig, VideoModel, make_judge
from relam_jax.diffusion.novelty import Novelty, make_rnd


class VideoPay:
    """The last frames, as tokens, of N environments of S seeds, and each seed's novelty."""

    def __init__(
        self,
        model: VideoModel,
        config: DiffusionConfig,
        frames: UInt8[np.ndarray, "N H W 3"],
        num_seeds: int,
        seed: int,
        kind: str = "diffusion",
    ) -> None:
        """Of environments that show `frames` at the start, seed-major; `kind`: of `NATS`."""
        judge = make_judge(config)
        positions, code_dim = judge.vqvae.config.grid**2, judge.vqvae.config.code_dim
        rnd = make_rnd(positions * code_dim)

        @jax.jit
        def begin(past: Array, mask: Array, frames: Array) -> Array:
            tokens = judge.tokens(model, frames)
            fresh = jnp.repeat(tokens[:, None], config.history + 1, axis=1)
            return jnp.where(mask[:, None, None], fresh, past)

        @jax.jit
        def advance(
            past: Array, novelty: Novelty, frames: Array, success: Array
        ) -> tuple[Array, Novelty, Array]:
            tokens = judge.tokens(model, frames)
            past = jnp.concatenate([past[:, 1:], tokens[:, None]], axis=1)
            codes = model.codec.codebook[tokens].reshape(num_seeds, -1, positions * code_dim)
            novelty, new = jax.vmap(rnd.update)(novelty, codes)
            pay = (1 - config.novelty) * judge.reward(kind, model, past)
            pay += config.novelty * new.ravel() + config.sparse * success
            return past, novelty, pay

        self._begin, self._advance = begin, advance
        keys = jax.random.split(jax.random.key(seed), num_seeds)
        self.novelty = jax.vmap(rnd.init)(keys)
        self.past = jnp.zeros((len(frames), config.history + 1, positions), jnp.int32)
        self.begin(np.ones(len(frames), bool), frames)

    def begin(self, mask: Bool[np.ndarray, " N"], frames: UInt8[np.ndarray, "N H W 3"]) -> None:
        """Episodes start where `mask` is True; `frames` are their first."""
        self.past = self._begin(self.past, mask, frames)

    def pay(
        self, frames: UInt8[np.ndarray, "N H W 3"], success: Bool[np.ndarray, " N"]
    ) -> Float[Array, " N"]:
        """For the step that led to `frames`; novelty learns from them."""
        self.past, self.novelty, pay = self._advance(
            self.past, self.novelty, frames, jnp.asarray(success, jnp.float32)
        )
        return pay

    def state(self) -> dict[str, Any]:
        """Everything that `set_state` needs to go on bit for bit."""
        return {"past": self.past, "novelty": self.novelty._asdict()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.past = jnp.asarray(state["past"])
        self.novelty = Novelty(**jax.tree.map(jnp.asarray, state["novelty"]))
