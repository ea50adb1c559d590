"""Everything a run depends on, in one frozen dataclass that is saved with the run and in each
checkpoint."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_type_hints

from relam_jax.agents.dacfo import DACfOConfig
from relam_jax.agents.sac import SACConfig
from relam_jax.anticipation.train import FitConfig
from relam_jax.diffusion.fit import FILMED, NATS, DiffusionConfig, make_judge
from relam_jax.envs.tasks import resolve_task
from relam_jax.envs.tracking import TrackingConfig
from relam_jax.keypoints.keyframes import KeyframeConfig
from relam_jax.keypoints.selection import SelectionConfig
from relam_jax.reward.stage_machine import RewardConfig

MAX_FILM_BYTES = 16 * 10**9
"""Frames that a run may keep in memory."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    task: str = "drawer_open"
    """Any Meta-World v3 task (drawer_open and drawer-open-v3 are the same), or any rigid-body task
    of ManiSkill by its id: PickCube-v1 (the same as pick_cube), LiftPegUpright-v1."""
    data: str = ""
    """Folder of keypoint records to learn anticipation from; dacfo and keypoint_diffusion learn
    from them too (default: data/<task>)."""
    videos: str = ""
    """Folder of the videos that those are of, from which diffusion and viper learn, and dacfo with
    rgb; true tracks beside them tell the report how good keypoints are (default: videos/<task>)."""
    anticipation: str = ""
    """Folder of a trained anticipation model, instead of `data`."""
    out: str = ""
    """Run folder (default: runs/<task>-<reward>-<seed>)."""
    reward: Literal[
        "relam",
        "oracle",
        "final",
        "dacfo",
        "diffusion",
        "viper",
        "keypoint_diffusion",
        "dense",
        "sparse",
    ] = "relam"
    """relam: anticipated keypoints; oracle: the same with true subgoals, from the scripted expert
    in the simulator; final: only the last subgoal; dacfo: a discriminator's, of demonstrations
    against the policy; diffusion: how sure a video model of the demonstrations is of what comes
    next; viper: how little what came surprises it; keypoint_diffusion: diffusion where entities
    are in the place of frames; dense, sparse: the simulator's own."""
    observation: Literal["keypoints", "keypoints+proprio", "rgb"] = "keypoints+proprio"
    """What the policy sees; `keypoints` alone is the paper's; rgb: keypoints and the cameras'
    frames."""
    keypoints: Literal["projected", "tracked"] = "projected"
    """projected: the simulator's own points, an oracle tracker; tracked: followed by Lucas-Kanade
    in rendered images, no simulator state (several times slower)."""
    num_envs: int = 32
    """Environments a seed."""
    num_seeds: int = 1
    """Seeds trained side by side, each with its own environments, replay and randomness."""
    seed: int = 0
    """Seed of the whole run; each of the `num_seeds` draws its own randomness from it."""
    total_env_steps: int = 100_000
    """Budget a seed, env_steps."""
    utd: float = 0.25
    """Update-to-data ratio: grad_steps an env_step."""
    learning_starts: int = 2_000
    """env_steps a seed of random actions before learning."""
    replay_capacity: int = 50_000
    """Agent steps a seed that are kept, rounded up to a multiple of num_envs; of rgb 42 kB each."""
    action_repeat: int = 3
    """env_steps an agent step."""
    arm_scale: float = 1.0
    """Share of the simulator's range of actions that moves the arm; the gripper has all of it. An
    action of 1 is 10 cm in ManiSkill and 3 cm an agent step in Meta-World, and the temperature
    holds the same noise in both."""
    episode_length: int = 150
    """Time limit, env_steps: about twice what the scripted experts take (door_open: up to 114)."""
    sim: Literal["auto", "gpu", "cpu"] = "auto"
    """Where ManiSkill simulates; auto: on the GPU if there is one."""
    occlusion: bool = False
    """Projected keypoints: hide those behind other bodies (visibility rays)."""
    eval_every: int = 8_000
    """env_steps a seed between evaluations."""
    eval_episodes: int = 30
    """Episodes a seed and evaluation, on initial states never trained on."""
    checkpoint_minutes: float = 3.0
    """Time between checkpoints; one is also written at the end and at SIGTERM."""
    checkpoint_replay: bool = True
    """Keep the replay buffer in checkpoints; without it a resumed run starts with an empty one."""
    sac: SACConfig = field(default_factory=SACConfig)
    dacfo: DACfOConfig = field(default_factory=DACfOConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    shaping: RewardConfig = field(default_factory=RewardConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    keyframes: KeyframeConfig = field(default_factory=KeyframeConfig)
    fit: FitConfig = field(default_factory=FitConfig)

    @property
    def env_steps_per_iteration(self) -> int:
        """env_steps a seed that one vector step takes."""
        return self.num_envs * self.action_repeat

    @property
    def updates_per_iteration(self) -> int:
        """grad_steps a seed after one vector step."""
        return max(1, round(self.utd * self.env_steps_per_iteration)) if self.utd > 0 else 0

    @property
    def episode_agent_steps(self) -> int:
        """Time limit, agent steps."""
        return -(-self.episode_length // self.action_repeat)

    @property
    def frame_size(self) -> int:
        """Pixels a side of the images that the policy or the reward looks at; 0: neither does."""
        if self.observation == "rgb":
            return 84
        return self.diffusion.frame_size if self.reward in FILMED else 0

    @property
    def film_bytes(self) -> int:
        """Memory that the frames of all seeds' replays take, for two views."""
        return self.num_seeds * self.replay_capacity * 2 * 3 * self.frame_size**2

    @property
    def run_folder(self) -> Path:
        """`out` or its default."""
        return Path(self.out or f"runs/{self.task}-{self.reward}-{self.seed}")

    @property
    def records_folder(self) -> Path:
        """`data` or its default."""
        return Path(self.data or f"data/{self.task}")

    @property
    def videos_folder(self) -> Path:
        """`videos` or its default."""
        return Path(self.videos or f"videos/{self.task}")

    @property
    def video_model_folder(self) -> Path:
        """`diffusion.model` or its default."""
        return Path(self.diffusion.model or self.run_folder / "diffusion")

    def check(self) -> None:
        """Raise ValueError with one sentence if the numbers do not fit each other."""
        for name in ("num_envs", "num_seeds", "total_env_steps", "action_repeat", "eval_episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1, not {getattr(self, name)}")
        if not 0 < self.arm_scale <= 1:
            raise ValueError(f"--arm_scale must be in (0, 1], not {self.arm_scale}")
        if self.episode_length % self.action_repeat:
            raise ValueError(
                f"--episode_length {self.episode_length} is no multiple of "
                f"--action_repeat {self.action_repeat}"
            )
        horizon = resolve_task(self.task).horizon
        if self.episode_length > horizon:
            raise ValueError(f"--episode_length is at most {horizon}, the horizon of {self.task}")
        if self.reward == "oracle" and self.keypoints != "projected":
            raise ValueError(
                "--reward oracle needs --keypoints projected: the simulator says where points will "
                "be, not which of its points a tracker follows"
            )
        if self.tracking != TrackingConfig() and self.keypoints != "tracked":
            raise ValueError("--tracking.… says how keypoints are tracked: add --keypoints tracked")
        if self.tracking.reseed and self.tracking.tracker != "lucas_kanade":
            raise ValueError("--tracking.reseed is for lucas_kanade: CoTracker3 finds points again")
        if self.reward in NATS:
            make_judge(self.diffusion, self.reward)
        if self.observation == "rgb" and self.reward in NATS:
            raise ValueError(
                f"--reward {self.reward} is for observations without frames: choose --observation "
                "keypoints or keypoints+proprio"
            )
        if self.observation == "rgb" and self.film_bytes > MAX_FILM_BYTES:
            raise ValueError(
                f"the frames of {self.num_seeds} × --replay_capacity {self.replay_capacity} would "
                f"take {self.film_bytes / 1e9:.0f} GB, more than {MAX_FILM_BYTES / 1e9:.0f}: "
                "lower --replay_capacity or --num_seeds"
            )
        if self.learning_starts >= self.total_env_steps:
            raise ValueError(
                f"--learning_starts {self.learning_starts} leaves nothing of --total_env_steps "
                f"{self.total_env_steps}"
            )


def to_json(config: TrainConfig) -> str:
    """The config as it is saved."""
    return json.dumps(dataclasses.asdict(config), indent=2)


def from_json(text: str) -> TrainConfig:
    """Read a saved config; ValueError with one sentence if it is of another version."""
    try:
        return _build(TrainConfig, json.loads(text))
    except (TypeError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"the run's config.json does not fit this version: {error}") from error


def _build(cls: type, values: dict[str, Any]) -> Any:
    hints = get_type_hints(cls)
    built = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(hints[name]):
            value = _build(hints[name], value)
        elif isinstance(value, list):
            value = tuple(value)
        built[name] = value
    return cls(**built)


def changed_fields(old: TrainConfig, new: TrainConfig) -> list[str]:
    """`name: old → new` for each difference that would make a resumed run another run."""
    may_change = {"out", "total_env_steps", "checkpoint_minutes", "checkpoint_replay"}

    def flat(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
        out = {}
        for name, value in values.items():
            if isinstance(value, dict):
                out |= flat(f"{prefix}{name}.", value)
            elif prefix + name not in may_change:
                out[prefix + name] = value
        return out

    a, b = flat("", dataclasses.asdict(old)), flat("", dataclasses.asdict(new))
    return [f"{name}: {a[name]} → {b[name]}" for name in a if a[name] != b.get(name)]
