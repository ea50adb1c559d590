"""Checkpoints of a whole run: learner, replay, environments, randomness and counters, in one orbax
tree.

On resume, in this order: 1. the newest whole checkpoint of the run folder; 2. its config must equal
the given one; 3. everything is restored from it; 4. log rows that are younger than it are dropped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from relam_jax.training.config import TrainConfig, changed_fields, from_json, to_json


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def pack(tree: Any) -> Any:
    """Typed random keys → their data, everything on the host."""
    return jax.tree.map(lambda x: np.asarray(jax.random.key_data(x) if _is_key(x) else x), tree)


def unpack(like: Any, packed: Any) -> Any:
    """The inverse of `pack`, with the structure and kinds of leaves of `like`."""
    leaves, structure = jax.tree.flatten(like)
    values = jax.tree.leaves(packed)
    if len(leaves) != len(values):
        raise ValueError("the checkpoint does not fit this version of the code")
    restored = [
        jax.random.wrap_key_data(jnp.asarray(v)) if _is_key(x) else v
        for x, v in zip(leaves, values, strict=True)
    ]
    return jax.tree.unflatten(structure, restored)


class Checkpoints:
    """The checkpoints of one run folder; the two newest are kept."""

    def __init__(self, run: Path) -> None:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, create=True, enable_async_checkpointing=False
        )
        self.manager = ocp.CheckpointManager((run / "checkpoints").absolute(), options=options)

    def save(self, env_steps: int, tree: Any, config: TrainConfig) -> None:
        """Write a checkpoint; the one before it stays until this one is whole.

        Raises:
            OSError: the disk is full or cannot be written; older checkpoints are untouched.
        """
        if self.manager.latest_step() == env_steps:
            return  # the last iteration's regular one
        packed = pack(tree)
        try:
            self.manager.save(
                env_steps,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(packed),
                    config=ocp.args.JsonSave({"train": to_json(config)}),
                ),
                force=True,
            )
            self.manager.wait_until_finished()
        except (OSError, ValueError) as error:
            raise OSError(
                f"the checkpoint at {env_steps} env_steps could not be written "
                f"({error}); free some space and "
                "go on with --resume: older checkpoints are whole"
            ) from error

    def latest(self) -> int | None:
        """env_steps of the newest whole checkpoint."""
        return self.manager.latest_step()

    def config(self) -> TrainConfig:
        """The config the newest checkpoint was written with."""
        step = self.manager.latest_step()
        stored = self.manager.restore(step, args=ocp.args.Composite(config=ocp.args.JsonRestore()))
        return from_json(stored["config"]["train"])

    def restore(self, like: Any, config: TrainConfig) -> Any:
        """The newest checkpoint's tree, in the structure of `like`.

        Raises:
            ValueError: it was written with another config or by another version.
        """
        changed = changed_fields(self.config(), config)
        if changed:
            raise ValueError(
                f"the checkpoint was written with another configuration ({'; '.join(changed)}): "
                "resume with the same one, or choose another --out"
            )
        packed = pack(like)
        try:
            stored = self.manager.restore(
                self.manager.latest_step(),
                args=ocp.args.Composite(state=ocp.args.StandardRestore(packed)),
            )
        except (ValueError, KeyError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"the checkpoint does not fit this version: {reason}") from error
        return unpack(like, stored["state"])

    def close(self) -> None:
        """Release the manager's threads."""
        self.manager.close()


def load_actor(run: Path) -> tuple[Any, int]:
    """The averaged actors' parameters (leading axis: seeds) in a run's newest checkpoint, and its
    env_steps.

    Raises:
        ValueError: the run has no checkpoint.
    """
    if not (run / "checkpoints").is_dir():
        raise ValueError(
            f"no checkpoint in {run}: train with experiments/train.py --out {run} first"
        )
    checkpoints = Checkpoints(run)
    step = checkpoints.latest()
    if step is None:
        raise ValueError(
            f"no checkpoint in {run}: train with experiments/train.py --out {run} first"
        )
    stored = checkpoints.manager.restore(
        step, args=ocp.args.Composite(state=ocp.args.StandardRestore())
    )
    checkpoints.close()
    return jax.tree.map(jnp.asarray, stored["state"]["learner"]["average_actor"]), step
