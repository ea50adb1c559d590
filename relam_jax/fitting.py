"""Gradient steps to the parameters that are best on clips held out; killed, a fit goes on where it
was. Anticipation and video models are fitted so."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from tqdm import tqdm

from relam_jax.keypoints.tfrecord import write_atomic

Log = Callable[[int, dict[str, float]], None]
"""(gradient steps so far, metrics)."""
SAVE_SECONDS = 20.0
"""Least time between two writes of where a fit stands."""


class Unfinished:
    """Where the fits of a folder stand, a file each, until `remove`.

    What was fitted with other settings or to other data counts as not there.
    """

    def __init__(self, folder: Path, settings: object, data: Any) -> None:
        """All that the fits depend on: `settings` as their repr, `data` as a pytree of arrays."""
        digest = hashlib.sha256(repr(settings).encode())
        for leaf in jax.tree.leaves(data):
            digest.update(np.ascontiguousarray(leaf).tobytes())
        self._folder, self._digest = folder, digest.hexdigest()
        self._began = self._written = time.monotonic()
        self._spent, self._found = 0.0, {}
        for path in self._files():
            with np.load(path) as stored:
                if str(stored["digest"]) == self._digest:
                    self._found[path.stem] = dict(stored)
                    self._spent = max(self._spent, float(stored["seconds"]))

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.unfinished"))

    @property
    def seconds(self) -> float:
        """Wall time of the fits, that before the kill included."""
        return self._spent + time.monotonic() - self._began

    def steps(self, name: str) -> int:
        """Gradient steps that were done when the fit `name` was last written."""
        return int(self._found[name]["steps"]) if name in self._found else 0

    def restore(self, name: str, like: Any) -> Any:
        """The pytree that was last written of the fit `name`; `like` if there is none."""
        if name not in self._found:
            return like
        leaves, structure = jax.tree.flatten(like)
        return structure.unflatten(self._found[name][f"leaf{i}"] for i in range(len(leaves)))

    def save(self, name: str, steps: int, tree: Any, now: bool) -> None:
        """Write where the fit `name` stands; unless `now`, only if `SAVE_SECONDS` have gone by."""
        if not now and time.monotonic() - self._written < SAVE_SECONDS:
            return
        file, leaves = io.BytesIO(), jax.tree.leaves(tree)
        about = {"digest": self._digest, "steps": steps, "seconds": self.seconds}
        np.savez(file, **about, **{f"leaf{i}": leaf for i, leaf in enumerate(leaves)})
        write_atomic(self._folder / f"{name}.unfinished", file.getvalue())
        self._written = time.monotonic()

    def write_timing(self) -> None:
        """The fits are finished: timing.json says what they took."""
        text = json.dumps({"seconds": round(self.seconds, 1)})
        write_atomic(self._folder / "timing.json", text.encode())

    def remove(self) -> None:
        """What was fitted is saved."""
        for path in self._files():
            path.unlink()


def descend(
    grad_step: Callable[[Any, Array], tuple[Any, dict[str, Array]]],
    carry: Any,
    num_steps: int,
    every: int,
    name: str,
    *,
    validate: Callable[[Any], Array] | None = None,
    patience: int | None = None,
    log: Log = lambda steps, metrics: None,
    kept: Unfinished | None = None,
) -> Any:
    """The last parameters; with `validate`, (parameters) → error, those of the least error.

    `grad_step` maps a carry, whose first part the parameters are, and the number of the step to the
    carry and metrics, `loss` among them, which are logged every `every` steps. After `patience`
    looks without a lower error it ends before `num_steps`. With `kept` it goes on where it was.

    Raises:
        FloatingPointError: the loss is NaN.
    """

    @partial(jax.jit, donate_argnums=0)
    def chunk(carry: Any, numbers: Array) -> Any:
        carry, metrics = jax.lax.scan(grad_step, carry, numbers)
        return carry, jax.tree.map(jnp.mean, metrics)

    done, state = 0, (carry, carry[0], np.inf, 0)
    if kept:
        done, state = kept.steps(name), kept.restore(name, state)
    carry, best, least, stale = state
    # copies: a carry is donated, `best` may be a part of it, and what was restored is numpy
    carry, best = jax.tree.map(jnp.copy, (carry, best))

    def over() -> bool:
        return bool(done >= num_steps or (patience is not None and stale >= patience))

    with tqdm(total=num_steps, initial=done, desc=name, unit="step", disable=None) as bar:
        while not over():
            numbers = jnp.arange(done, min(done + every, num_steps))
            carry, means = chunk(carry, numbers)
            done += len(numbers)
            metrics = {k: float(v) for k, v in means.items()}
            if not np.isfinite(metrics["loss"]):
                raise FloatingPointError(f"the {name}'s loss is NaN after {done} steps")
            if validate is not None:
                metrics["validation_error"] = float(validate(carry[0]))
            error = metrics.get("validation_error", -np.inf)
            better = validate is None or error < least
            if better:
                best, least = jax.tree.map(jnp.copy, carry[0]), error
            stale = 0 if better else stale + 1
            log(done, metrics)
            bar.update(len(numbers))
            bar.set_postfix({k: f"{v:.4f}" for k, v in metrics.items()})
            if kept:
                kept.save(name, done, (carry, best, least, stale), now=over())
    return best
