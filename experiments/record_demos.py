"""Record demonstrations of a task by its scripted expert, as action-free videos.

    python experiments/record_demos.py --task drawer_open --num 30 --out videos/drawer_open

Writes, for episode 000 and view cam0 (see docs/architecture.md): `000.cam0.mp4` (h264, one frame an
env_step), `000.cam0.masks.png` (label image of the first frame) and, with `--truth`,
`000.cam0.truth.npz`; and for the whole folder `masks.json` (index → entity) and `demos.json` (how
it was made). The same arguments give the same files. An episode that does not succeed is left out
and the next initial state is tried. ManiSkill's tasks are simulated by SAPIEN and drawn by MuJoCo,
so nothing needs Vulkan; where no OpenGL works either, the pictures are plain.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image
from tqdm import tqdm

from relam_jax.envs.rendering import RayRenderer, SceneRenderer, make_renderer
from relam_jax.envs.scene import Surface, camera_pose, cast, pixel_centres
from relam_jax.envs.scripted import (
    entity_bodies,
    initial_states,
    make_simulation,
    reset_simulation,
    scripted_expert,
)
from relam_jax.envs.simulator import choose_gl, mujoco
from relam_jax.envs.tasks import TaskSpec, resolve_task
from relam_jax.envs.truth import Truth
from relam_jax.geometry import CameraPose
from relam_jax.video import write_video

MAX_ENV_STEPS = 300
ATTEMPTS_PER_EPISODE = 3
PALETTE = (0, 0, 0, 230, 60, 60, 60, 160, 230, 80, 200, 90, 240, 190, 50, 160, 90, 210)
STATE = mujoco.mjtState.mjSTATE_INTEGRATION
FILES = re.compile(r"\d{3,}(\.cam\d)?\.(mp4|masks\.png|truth\.npz)|masks\.json|demos\.json")


@dataclass(frozen=True)
class Args:
    """Arguments of the command line."""

    task: str
    """task, by any spelling: drawer_open, drawer-open-v3, pick_cube, PickCube-v1"""
    num: int = 30
    """episodes to record (successful ones)"""
    out: str | None = None
    """folder to write to; default videos/<task>"""
    seed: int = 0
    """which pool of initial states; never those of training or evaluation"""
    size: int = 256
    """width and height of the videos, pixels"""
    crf: int = 18
    """quality of the h264 encoding: lower is better and larger"""
    truth: bool = False
    """also write the simulator's true geometry, to score trackers with"""
    overwrite: bool = False
    """replace the demonstrations that the folder holds already"""


@dataclass
class Episode:
    """One scripted episode: a simulator state a frame."""

    states: list[np.ndarray]
    success_frame: int


def run_expert(env: Any, spec: TaskSpec, task: Any) -> Episode | None:
    """Roll the expert out until success has held `spec.tail` env_steps; None if it never does."""
    obs = reset_simulation(env, task)
    act, first = scripted_expert(spec.env_id), None
    states = [get_state(env)]
    for step in range(1, MAX_ENV_STEPS + 1):
        obs, _, _, _, info = env.step(act(obs))
        states.append(get_state(env))
        if not info["success"]:
            first = None
        elif first is None:
            first = step
        if first is not None and step == first + spec.tail:
            return Episode(states, first)
    return None


@dataclass
class Stage:
    """What is filmed: a MuJoCo model with its data, and the expert's episodes, one a try."""

    env: Any
    """has `model` and `data`."""
    entities: dict[str, tuple[int, ...]]
    episodes: Iterator[Episode | None]
    fps: int
    packages: tuple[str, ...]
    renderer: Callable[..., SceneRenderer | RayRenderer]
    """of the model, its cameras and the size of a picture."""


def metaworld_stage(spec: TaskSpec, seed: int, tries: int) -> Stage:
    """Meta-World's own environment."""
    env = make_simulation(spec.env_id)
    pool = initial_states(spec.env_id, "demos", seed, tries)
    episodes = (run_expert(env, spec, task) for task in pool)
    fps = env.metadata["render_fps"]
    packages = ("metaworld", "mujoco")
    return Stage(env, dict(entity_bodies(spec)), episodes, fps, packages, SceneRenderer)


def maniskill_stage(spec: TaskSpec, seed: int, tries: int) -> Stage:
    """A MuJoCo mirror of the scenes that ManiSkill simulates without rendering."""
    from relam_jax.envs.maniskill.env import ManiSkillEnv

    width = min(tries, 32)
    env = ManiSkillEnv(
        spec, width, seed=seed, split="demos", num_init_states=tries, sim="cpu", num_candidates=1
    )

    def roll_out(indices: np.ndarray) -> Iterator[Episode | None]:
        env.reset(init_states=indices)
        poses, success = [env.poses], [np.zeros(width, bool)]
        env.follow(np.zeros((width, len(env.view_names), len(env.entity_names), 1), int))
        for _ in range(env.episode_length):
            success.append(env.step(env.scripted_actions()).success)
            poses.append(env.poses)
        for row in range(width):
            ends = [t for t in range(1, len(success)) if held(success, row, t, spec.tail)]
            frames = ends[0] + spec.tail + 1 if ends else 0
            states = [env.mirror.state(p[row]) for p in poses[:frames]]
            yield Episode(states, ends[0]) if ends else None

    def episodes() -> Iterator[Episode | None]:
        for start in range(0, tries, width):
            last = min(start + width, tries)
            yield from itertools.islice(
                roll_out(np.arange(start, start + width) % tries), last - start
            )

    entities = dict(zip(env.entity_names, env.entity_bodies, strict=True))
    packages = ("mani_skill", "sapien", "mujoco")
    return Stage(env.mirror, entities, episodes(), env.control_freq, packages, make_renderer)


def held(success: list[np.ndarray], row: int, start: int, tail: int) -> bool:
    """Whether success came with frame `start` and held `tail` frames."""
    after = success[start : start + tail + 1]
    return len(after) == tail + 1 and all(s[row] for s in after)


def get_state(env: Any) -> np.ndarray:
    """The simulator's integration state, float64."""
    state = np.empty(mujoco.mj_stateSize(env.model, STATE))
    mujoco.mj_getState(env.model, env.data, state, STATE)
    return state


def set_state(env: Any, state: np.ndarray) -> None:
    """Restore a state, with all derived quantities."""
    mujoco.mj_setState(env.model, env.data, state, STATE)
    mujoco.mj_forward(env.model, env.data)


def write_masks(path: Path, surface: Surface, entities: list[tuple[int, ...]]) -> None:
    """Write the label image: 0 background, i the i-th entity (from 1)."""
    labels = np.zeros(surface.body.shape, np.uint8)
    for index, bodies in enumerate(entities, start=1):
        labels[np.isin(surface.body, bodies)] = index
    image = Image.fromarray(labels)
    image.putpalette(PALETTE)
    image.save(path, format="PNG", optimize=True)


def true_geometry(
    env: Any,
    episode: Episode,
    camera: CameraPose,
    view: int,
    first: Surface,
    renderer: SceneRenderer | RayRenderer,
) -> Truth:
    """Where every body was in every frame and what the camera saw of it."""
    half = first.body.shape[0] // 2
    xpos, xmat, depth = [], [], []
    for state in episode.states:
        set_state(env, state)
        xpos.append(env.data.xpos.copy())
        xmat.append(env.data.xmat.reshape(-1, 3, 3).copy())
        image = renderer.depth(env.model, state, view)
        depth.append(image.reshape(half, 2, half, 2).max((1, 3)).astype(np.float16))
    return Truth(
        body_id=first.body.astype(np.int16),
        local_xyz=first.local.astype(np.float32),
        xpos=np.stack(xpos),
        xmat=np.stack(xmat),
        depth=np.stack(depth),
        camera=camera,
    )


def write_episode(
    out: Path,
    stem: str,
    args: Args,
    stage: Stage,
    episode: Episode,
    cameras: tuple[CameraPose, ...],
    surfaces: dict[str, Surface],
    renderer: SceneRenderer | RayRenderer,
) -> None:
    """Write the files of one episode, of whose first frame the `surfaces` are, a view each, the
    video last."""
    env = stage.env
    for index, (camera, (view, surface)) in enumerate(zip(cameras, surfaces.items(), strict=True)):
        name = f"{stem}.{view}"
        write_masks(out / f"{name}.masks.png", surface, list(stage.entities.values()))
        if args.truth:
            truth = true_geometry(env, episode, camera, index, surface, renderer)
            truth.save(out / f"{name}.truth.npz")
        frames = (renderer.render(env.model, state, index) for state in episode.states)
        write_video(out / f"{name}.mp4", frames, stage.fps, args.crf)


def earlier_files(out: Path) -> list[Path]:
    """What an earlier recording left in the folder."""
    return [p for p in out.iterdir() if FILES.fullmatch(p.name)] if out.is_dir() else []


def record(args: Args) -> None:
    """Do what the command line says. Raises ValueError or RuntimeError with one sentence."""
    spec = resolve_task(args.task)
    if args.num < 1 or args.size < 32 or args.size % 2:
        raise ValueError("--num must be positive and --size an even number of at least 32.")
    out = Path(args.out or Path("videos") / spec.name)
    if earlier_files(out) and not args.overwrite:
        raise ValueError(f"{out} holds demonstrations already: add --overwrite to replace them.")
    tries = args.num * ATTEMPTS_PER_EPISODE
    stage = (maniskill_stage if spec.simulator == "maniskill" else metaworld_stage)(
        spec, args.seed, tries
    )
    env, names = stage.env, stage.entities
    cameras = tuple(camera_pose(env.model, camera) for camera in spec.cameras)
    renderer = stage.renderer(env.model, cameras, args.size)
    means = choose_gl() if isinstance(renderer, SceneRenderer) else "rays, since no OpenGL works"
    tqdm.write(f"rendering with {means}", file=sys.stderr)
    try:
        for path in earlier_files(out):
            path.unlink()
        out.mkdir(parents=True, exist_ok=True)
        meta = json.dumps({str(i): name for i, name in enumerate(names, start=1)}, indent=2)
        (out / "masks.json").write_text(meta + "\n")
        episodes: list[dict[str, Any]] = []
        bar = tqdm(total=args.num, unit="episode", disable=not sys.stderr.isatty())
        for index, episode in enumerate(stage.episodes):
            if len(episodes) == args.num:
                break
            if episode is None:
                tqdm.write(f"initial state {index}: the expert failed, next", file=sys.stderr)
                continue
            set_state(env, episode.states[0])
            pixels = pixel_centres(args.size)
            surfaces = {
                name: cast(env.model, env.data, camera, pixels)
                for name, camera in zip(spec.view_names, cameras, strict=True)
            }
            shown = np.unique([surface.body for surface in surfaces.values()])
            if hidden := [n for n, bodies in names.items() if not np.isin(bodies, shown).any()]:
                why = f"no camera shows the {hidden[0]}"
                tqdm.write(f"initial state {index}: {why}, next", file=sys.stderr)
                continue
            stem = f"{len(episodes):03d}"
            write_episode(out, stem, args, stage, episode, cameras, surfaces, renderer)
            episodes.append(
                {
                    "episode": stem,
                    "initial_state": index,
                    "actions": len(episode.states) - 1,
                    "success_frame": episode.success_frame,
                }
            )
            bar.update()
        bar.close()
    finally:
        renderer.close()
    if not episodes:
        raise RuntimeError(
            f"none of {tries} tries gave an episode of {spec.name}; the lines above say why."
        )
    write_meta(out, args, spec, stage, episodes)
    print(f"{len(episodes)} episodes of {spec.name} in {out}")
    if len(episodes) < args.num:
        raise RuntimeError(f"only {len(episodes)} of {args.num} episodes; the lines above say why.")


def write_meta(
    out: Path, args: Args, spec: TaskSpec, stage: Stage, episodes: list[dict[str, Any]]
) -> None:
    """Write demos.json: how the folder was made."""
    meta = {
        "task": spec.name,
        "env_id": spec.env_id,
        "cameras": [asdict(camera) for camera in spec.cameras],
        "seed": args.seed,
        "size": args.size,
        "crf": args.crf,
        "fps": stage.fps,
        "versions": {p: importlib.metadata.version(p) for p in stage.packages},
        "episodes": episodes,
    }
    (out / "demos.json").write_text(json.dumps(meta, indent=1) + "\n")


def main() -> None:
    """Run the command line."""
    try:
        record(tyro.cli(Args, description=__doc__))
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"record_demos: {error}")


if __name__ == "__main__":
    main()
