"""From the first frame of an episode to its keypoints and subgoals, and the model's file format."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Array, Bool, Float, Int

from relam_jax.anticipation.model import AnticipationModel, ModelConfig, pose_summary, roll_out
from relam_jax.keypoints.keyframes import KeyframeConfig
from relam_jax.keypoints.selection import SelectionConfig, choose, motion_range
from relam_jax.keypoints.tfrecord import write_atomic

SURELY = 2.0
"""Least logit, of staying in sight, of a point that is followed: 88 %. The model has not learned
where the others go, and farthest point sampling likes them."""


class Plan(NamedTuple):
    """What an episode follows: keypoints chosen among the candidates, and where they go."""

    indices: Int[Array, "N V E K"]
    valid: Bool[Array, "N V E K"]
    """False: padding, an entity with fewer than K eligible points in this view."""
    start: Float[Array, "N V E K 2"]
    """where the keypoints are in the first frame, image sides."""
    subgoals: Float[Array, "N S V E K 2"]
    """image sides; rows from `num_stages` on repeat the final subgoal."""
    num_stages: Int[Array, " N"]
    error: Float[Array, "N S V E"]
    """how far such a subgoal was off on clips never trained on, image sides."""


@dataclass(frozen=True)
class Anticipation:
    """A trained model with all that is needed to use it on new episodes."""

    model: ModelConfig
    selection: SelectionConfig
    keyframes: KeyframeConfig
    task: str
    view_names: tuple[str, ...]
    entity_names: tuple[str, ...]
    num_stages: int
    """most stages seen in training; roll-outs go so far."""
    test_error: tuple[float, ...]
    """free-running error a stage on clips never trained on: median distance of points, image
    sides."""
    group_error: tuple[tuple[tuple[float, ...], ...], ...]
    """S x V x E: the same as the reward sees it: the mean over the points of an entity in a view,
    median over clips never trained on; 0 where none of them was followed."""
    params: Any


def save_anticipation(path: Path, anticipation: Anticipation) -> None:
    """Write `path`/config.json and `path`/params (orbax), replacing what was there."""
    path = path.absolute()
    path.mkdir(parents=True, exist_ok=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path / "params", anticipation.params, force=True)
    config = {
        f.name: getattr(anticipation, f.name)
        for f in dataclasses.fields(anticipation)
        if f.name != "params"
    }
    text = json.dumps(config, default=dataclasses.asdict, indent=2)
    write_atomic(path / "config.json", text.encode())


def load_anticipation(path: Path) -> Anticipation:
    """Read what `save_anticipation` wrote.

    Raises:
        ValueError: there is no anticipation model at `path`, or it was written by another version.
    """
    path = path.absolute()
    if not (path / "config.json").exists():
        raise ValueError(
            f"no anticipation model at {path}: train one with experiments/train.py --data …"
        )
    config = json.loads((path / "config.json").read_text())
    try:
        config["model"] = ModelConfig(**config["model"])
        selection = config["selection"]
        selection["goal_entities"] = tuple(selection["goal_entities"])
        config["selection"] = SelectionConfig(**selection)
        config["keyframes"] = KeyframeConfig(**config["keyframes"])
        for name in ("view_names", "entity_names", "test_error"):
            config[name] = tuple(config[name])
        config["group_error"] = as_tuples(config["group_error"])
        shape = (1, 1, len(config["view_names"]), len(config["entity_names"]), 1)
        points, seen = jnp.zeros((*shape, 2)), jnp.ones(shape, bool)
        pose = pose_summary(points[:, 0], seen[:, 0])
        init = AnticipationModel(config["model"]).init
        shapes = jax.eval_shape(init, jax.random.key(0), points, seen, pose)
        with ocp.StandardCheckpointer() as checkpointer:
            params = checkpointer.restore(path / "params", shapes)
        return Anticipation(params=params, **config)
    except (TypeError, KeyError, ValueError, FileNotFoundError) as error:
        raise ValueError(
            f"the anticipation model at {path} does not fit this version ({error}): train it again"
        ) from error


def as_tuples(nested: Any) -> Any:
    """Nested lists, as JSON has them, as nested tuples."""
    return tuple(map(as_tuples, nested)) if isinstance(nested, list) else nested


Planner = Callable[[Float[np.ndarray, "N V E C 2"], Bool[np.ndarray, "N V E C"]], Plan]
"""(candidates of first frames, image sides; which are seen) → plans."""
MOST_REMEMBERED = 10_000


def remember(planner: Planner) -> Planner:
    """Plan each first frame once: episodes start from a pool of initial states.

    Frames are planned one by one, so that a plan does not depend, in its last bits, on what is
    planned beside it or on what was seen before: a resumed run goes on bit for bit.
    """
    known: dict[bytes, Plan] = {}

    def plan_one(points: np.ndarray, visibility: np.ndarray) -> Plan:
        frame = points.tobytes() + visibility.tobytes()
        if frame not in known:
            if len(known) >= MOST_REMEMBERED:
                known.clear()
            known[frame] = jax.tree.map(np.asarray, planner(points[None], visibility[None]))
        return known[frame]

    def plan(points: np.ndarray, visibility: np.ndarray) -> Plan:
        rows = [plan_one(*frame) for frame in zip(points, visibility, strict=True)]
        return jax.tree.map(lambda *parts: jnp.asarray(np.concatenate(parts)), *rows)

    return plan


def make_planner(anticipation: Anticipation) -> Planner:
    """The jitted planner: anticipate for all candidates, drop those that will be out of sight or
    not move (Θ), FPS to K."""
    model = AnticipationModel(anticipation.model)
    exempt = np.isin(anticipation.entity_names, anticipation.selection.goal_entities)
    stages, params = anticipation.num_stages, anticipation.params
    error = jnp.asarray(anticipation.group_error)
    followed = (error > 0).any(0)[..., None]

    def choose_one(start: Array, seen: Array, subgoals: Array) -> tuple[Array, Array]:
        track = jnp.concatenate([start[None], subgoals])
        motion = motion_range(track, jnp.repeat(seen[None], stages + 1, axis=0))
        return choose(start, seen, motion, exempt, anticipation.selection)

    @jax.jit
    def plan(points: Array, visibility: Array) -> Plan:
        points = jnp.where(visibility[..., None], points, 0.0)
        subgoals, in_sight, stop = roll_out(model, params, points, visibility, stages)
        in_sight = visibility & (in_sight > SURELY)
        last = jnp.where((stop > 0).any(1), jnp.argmax(stop > 0, axis=1), stages - 1)
        row = jnp.minimum(jnp.arange(stages), last[:, None])
        subgoals = jnp.take_along_axis(subgoals, row[:, :, None, None, None, None], axis=1)
        # an entity that will be hidden in a view must not vanish from it, if it was ever followed
        # there: the other views alone may not say how far away it is, and without any the reward
        # would not know it
        hidden, nowhere = ~in_sight.any(-1, keepdims=True), ~in_sight.any((1, 3), keepdims=True)
        eligible = jnp.where(hidden & (followed | nowhere), visibility, in_sight)
        indices, valid = jax.vmap(choose_one)(points, eligible, subgoals)
        chosen = jnp.take_along_axis(subgoals, indices[:, None, ..., None], axis=4)
        start = jnp.take_along_axis(points, indices[..., None], axis=3)
        valid &= ~exempt[:, None]  # a goal is looked at, not brought anywhere
        return Plan(indices, valid, start, chosen, last + 1, error[row])

    return plan
