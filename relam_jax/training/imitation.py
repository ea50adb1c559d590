"""What the discriminator of `--reward dacfo` compares and the model of `keypoint_diffusion` is of:
where the entities of demonstrations and of the policy are, and how they move.

The K keypoints of an entity are other points in each clip, and a tracker in videos chooses its
candidates by another rule than the simulator, so neither the points nor their mean can be held
against each other: the mean of the K points of a gripper in one and the same pose is 0.02 image
sides lower in the videos than in the simulator, which is how far it moves in an agent step and
enough to tell the two apart for ever. What is the same in both is the middle of the box around all
candidates of the first frame (0.000 to 0.003 off), and how far the keypoints have moved since. So
an entity's place is

    middle of the first frame's box + mean over the keypoints of (p(t) − p(0)).

Both choose their keypoints by the same planner. Where it finds none that would stay in sight, the
entity stands still in that view, in the demonstrations as for the policy. With
`--observation rgb` dacfo compares what the cameras show in the place of places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8

from relam_jax.agents.dacfo import DACfO, make_dacfo
from relam_jax.anticipation.plan import Anticipation, Plan, make_planner
from relam_jax.keypoints.keyframes import fill_hidden
from relam_jax.keypoints.records import read_records
from relam_jax.keypoints.schema import KeypointRecord
from relam_jax.keypoints.selection import SelectionConfig, group_by_entity, well_seen
from relam_jax.training.config import TrainConfig
from relam_jax.training.demonstrations import demonstration_frames

Array = Any  # numpy or jax
OF_PLACES = ("dacfo", "keypoint_diffusion")
"""Rewards that read where entities are."""


def box_middle(
    points: Float[np.ndarray, "N V E C 2"], visibility: Bool[np.ndarray, "N V E C"]
) -> Float[np.ndarray, "N V E 2"]:
    """Middle of the box around an entity's visible candidates; that of the image if it has none."""
    seen = visibility[..., None]
    low, high = np.where(seen, points, 1.0).min(-2), np.where(seen, points, 0.0).max(-2)
    return ((low + high) / 2).astype(np.float32)


def mean_point(points: Float[Array, "*B K 2"], valid: Bool[Array, "*#B K"]) -> Float[Array, "*B 2"]:
    """Mean of an entity's keypoints, hidden ones where they are believed to be; 0 without any."""
    xp = points.__array_namespace__()
    total = xp.where(valid[..., None], points, 0.0).sum(-2)
    return total / xp.maximum(valid.sum(-1), 1)[..., None]


def demonstration_places(
    records: Sequence[KeypointRecord],
    planner: Callable[[np.ndarray, np.ndarray], Plan],
    selection: SelectionConfig,
) -> list[Float[np.ndarray, "_ F"]]:
    """Where all entities are in all views, a row a frame of each clip, image sides."""
    clips = [group_by_entity(record) for record in records]
    firsts = np.stack([clip.points[0] for clip in clips])
    middle = box_middle(firsts, np.stack([clip.visibility[0] for clip in clips]))
    plan = planner(firsts, np.stack([well_seen(clip, selection) for clip in clips]))
    indices, valid = np.asarray(plan.indices), np.asarray(plan.valid)
    out = []
    for n, clip in enumerate(clips):
        points = np.take_along_axis(clip.points, indices[n][None, ..., None], axis=3)
        seen = np.take_along_axis(clip.visibility, indices[n][None], axis=3)
        flat = fill_hidden(points.reshape(len(points), -1, 2), seen.reshape(len(points), -1))
        means = mean_point(flat.reshape(points.shape), valid[n][None])
        places = (middle[n] + means - means[0]).reshape(len(points), -1)
        out.append(places.astype(np.float32))
    return out


def demonstration_pairs(
    clips: Sequence[Shaped[np.ndarray, "_ *F"]], action_repeat: int, episode_length: int
) -> Shaped[np.ndarray, "P 2 *F"]:
    """Every pair of places, or of numbers of frames, an agent step apart.

    Clips show a frame an env_step. Each is held at its last frame up to `episode_length` env_steps:
    who is done stays so to the end of the episode, and a clip that ends there would teach that
    staying is the policy's (Kostrikov et al. 2019 mend the same by absorbing states).
    """
    pairs = []
    for clip in clips:
        held = clip[np.arange(max(episode_length + 1, len(clip))).clip(max=len(clip) - 1)]
        pairs.append(np.stack([held[:-action_repeat], held[action_repeat:]], axis=1))
    return np.concatenate(pairs)


def frame_numbers(clips: Sequence[Shaped[np.ndarray, "_ *F"]]) -> list[Int[np.ndarray, " _"]]:
    """Of each clip, once all are one after the other."""
    lengths = [len(clip) for clip in clips]
    return np.split(np.arange(sum(lengths)), np.cumsum(lengths)[:-1])


def read_places(config: TrainConfig, anticipation: Anticipation) -> list[np.ndarray]:
    """`demonstration_places` of the run's records.

    Raises:
        FileNotFoundError, ValueError: there are no records, or they are of other views or entities.
    """
    records = read_records(config.records_folder)
    known = (anticipation.view_names, anticipation.entity_names)
    for r in records:
        if known != (r.view_names, r.entity_names):
            raise ValueError(
                f"the record {r.video_id} of {config.records_folder} has the views {r.view_names} "
                f"and entities {r.entity_names}, the anticipation model {known[0]} and {known[1]}"
            )
    return demonstration_places(records, make_planner(anticipation), anticipation.selection)


def make_imitation(
    config: TrainConfig, anticipation: Anticipation
) -> tuple[DACfO, UInt8[Array, "R H W C"] | None]:
    """The discriminator of `--reward dacfo` with the demonstrations it knows, and their frames if
    it is of frames; raises as `read_places` or `demonstration_frames` does."""
    pairs = partial(
        demonstration_pairs,
        action_repeat=config.action_repeat,
        episode_length=config.episode_length,
    )
    if config.observation != "rgb":
        return make_dacfo(config.dacfo, pairs(read_places(config, anticipation))), None
    folders = config.records_folder, config.videos_folder
    clips = demonstration_frames(*folders, config.frame_size, anticipation.view_names)
    dacfo = make_dacfo(config.dacfo, pairs(frame_numbers(clips)), clips[0].shape[1:])
    return dacfo, jnp.asarray(np.concatenate(clips))
