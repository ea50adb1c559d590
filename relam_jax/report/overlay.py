"""What a policy does, as a video: camera images with keypoints, subgoals, stage and reward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from relam_jax.envs.protocol import BatchedEnv, Candidates, EnvState
from relam_jax.report.along import reward_along
from relam_jax.report.drawing import draw_points
from relam_jax.reward.stage_machine import Goal, RewardConfig

PICTURE_SIDE = 256
"""Pixels a side of a picture a stage."""
VIEW_SIDE = 384
"""Pixels a side of a view in the video."""
LINGER = 12
"""Frames that are shown after the watched environments have succeeded."""
STRIP = 56
"""Height of the text below, pixels."""


class Watch:
    """Passes everything on to a `BatchedEnv`, keeping the first episode of some environments until
    all of them have ended, or succeeded `LINGER` frames ago.

    It sees the last state of an episode, which a `GoalEnv` resets before anybody could render it.
    """

    def __init__(self, env: BatchedEnv, watched: Sequence[int]) -> None:
        self.env, self.watched = env, list(watched)
        self.states: list[EnvState] = []
        """of the watched environments only, the first state first."""
        self.images: list[list[list[np.ndarray | None]]] = []
        """frame, watched environment, view."""
        self._over = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def reset(self, mask: Any = None, init_states: Any = None) -> Candidates:
        """See `BatchedEnv.reset`."""
        return self.env.reset(mask, init_states)

    def follow(self, indices: Int[np.ndarray, "N V E K"], mask: Any = None) -> EnvState:
        """See `BatchedEnv.follow`."""
        return self._note(self.env.follow(indices, mask))

    def step(self, action: Float[np.ndarray, "N A"]) -> EnvState:
        """See `BatchedEnv.step`."""
        return self._note(self.env.step(action))

    def _note(self, seen: EnvState) -> EnvState:
        if not self._over:
            self.states.append(EnvState(*(np.array(x[self.watched]) for x in seen)))
            views = range(len(self.env.view_names))
            self.images.append([[self.env.render(i, v) for v in views] for i in self.watched])
            earlier = [s.success for s in self.states[:-LINGER]]
            done = seen.truncated[self.watched] | np.any(earlier, axis=0)
            self._over = bool(done.all())
        return seen


class Episode(NamedTuple):
    """One episode, ready to be drawn; T frames."""

    images: list[list[UInt8[np.ndarray, "H W 3"]]]
    """T × V."""
    keypoints: Float[np.ndarray, "T V E K 2"]
    visibility: Bool[np.ndarray, "T V E K"]
    subgoals: Float[np.ndarray, "T V E K 2"]
    """those in force at each frame."""
    stage: Int[np.ndarray, " T"]
    """subgoals met."""
    num_stages: int
    reward: Float[np.ndarray, " T"]
    """of the keypoints, whatever the policy was trained on; 0 in the first frame."""
    success: Bool[np.ndarray, " T"]
    """the simulator's flag, now or earlier."""


def watched_episode(watch: Watch, row: int, goal: Goal, config: RewardConfig) -> Episode | None:
    """The `row`-th watched environment's episode under its `goal`; None if it was not rendered."""
    images = [frame[row] for frame in watch.images]
    if not images or any(image is None for frame in images for image in frame):
        return None
    keypoints = np.stack([s.keypoints[row] for s in watch.states])
    visibility = np.stack([s.visibility[row] for s in watch.states]) & np.asarray(goal.valid)
    along = reward_along(keypoints, visibility, goal, config)
    stage = np.concatenate([[0], np.asarray(along.stage)])
    now = np.minimum(stage, int(goal.num_stages) - 1)
    return Episode(
        images,  # type: ignore[arg-type]
        keypoints,
        visibility,
        np.asarray(goal.subgoals)[now],
        stage,
        int(goal.num_stages),
        np.concatenate([[0.0], np.asarray(along.reward)]),
        np.logical_or.accumulate([bool(s.success[row]) for s in watch.states]),
    )


def overlay_frames(episode: Episode, title: str) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Views side by side: keypoints filled, subgoals hollow, lines between; stages below."""
    views = len(episode.images[0])
    for t in range(len(episode.images)):
        pictures = [_drawn(episode, t, v, VIEW_SIDE) for v in range(views)]
        yield np.concatenate(
            [np.concatenate(pictures, axis=1), _strip(episode, t, title, VIEW_SIDE * views)]
        )


def stage_pictures(episode: Episode) -> UInt8[np.ndarray, "H W 3"]:
    """The first view as each subgoal that was reached for comes into force, and at the end."""
    begun = np.unique(episode.stage, return_index=True)[1]
    frames = np.unique([*begun, len(episode.stage) - 1]).tolist()
    pictures = (_drawn(episode, t, 0, PICTURE_SIDE) for t in frames)
    gap = np.full((PICTURE_SIDE, 4, 3), 255, np.uint8)
    return np.concatenate([part for x in pictures for part in (gap, x)][1:], axis=1)


def _drawn(episode: Episode, t: int, view: int, side: int) -> UInt8[np.ndarray, "Side Side 3"]:
    return draw_points(
        episode.images[t][view],
        (side, side),
        episode.keypoints[t, view],
        episode.subgoals[t, view],
        episode.visibility[t, view],
    )


def _strip(episode: Episode, t: int, title: str, width: int) -> UInt8[np.ndarray, "Strip Width 3"]:
    image = Image.new("RGB", (width, STRIP), (17, 21, 28))
    draw = ImageDraw.Draw(image)
    narrow = width == VIEW_SIDE  # one view: smaller letters, and no room for the task's name
    font = ImageFont.load_default(12 if narrow else 17)
    title = title.rpartition(", ")[2] if narrow else title
    stage, stages = int(episode.stage[t]), episode.num_stages
    draw.text((14, 12), title, font=font, fill=(148, 160, 178))
    reward = f"{episode.reward[t]:.2f}" if t else "-"
    text = f"stage {min(stage + 1, stages)}/{stages}   reward {reward}"
    after = max(width * 0.34, 14 + draw.textlength(title, font) + 20)
    draw.text((after, 12), text, font=font, fill=(232, 237, 244))
    if episode.success[t]:
        draw.text((width - 14, 12), "success", font=font, fill=(74, 222, 128), anchor="ra")
    for s in range(stages):  # the stage bar
        left, right = (14 + (width - 28) * (s + i) / stages for i in (0, 1))
        box = [left, STRIP - 14, right - 4, STRIP - 9]
        draw.rectangle(box, fill=(74, 222, 128) if s < stage else (55, 65, 81))
    return np.asarray(image)
