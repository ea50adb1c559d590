"""The recorder end to end, at 64 pixels, and the true geometry that it writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from relam_jax.envs import truth
from relam_jax.geometry import CameraPose, project

ROOT = Path(__file__).parents[1]
SCRIPT = (str(ROOT / "experiments" / "record_demos.py"),)


def run(
    *args: str, program: tuple[str, ...] = SCRIPT, **env: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *program, *args]
    environment = {k: v for k, v in os.environ.items() if k != "MUJOCO_GL"} | env
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def sentence(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode != 0
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("record_demos: ")
    return lines[0]


@pytest.fixture(scope="module")
def demos(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("demos")
    result = run(
        *("--task", "button-press-v3", "--num", "1", "--size", "64", "--truth", "--out", str(out))
    )
    if "no off-screen OpenGL" in result.stderr:
        pytest.skip("no OpenGL back end works here")
    assert result.returncode == 0, result.stderr
    return out


def frames(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def test_files_and_their_contents(demos: Path):
    views = ("000.cam0", "000.cam1")
    expected = {f"{v}.{s}" for v in views for s in ("mp4", "masks.png", "truth.npz")}
    assert {p.name for p in demos.iterdir()} == expected | {"masks.json", "demos.json"}
    assert json.loads((demos / "masks.json").read_text()) == {"1": "gripper", "2": "object"}
    meta = json.loads((demos / "demos.json").read_text())
    assert (meta["task"], meta["seed"], meta["fps"]) == ("button_press", 0, 80)
    [episode] = meta["episodes"]
    assert episode["actions"] == episode["success_frame"] + 10
    for view in views:
        video = frames(demos / f"{view}.mp4")
        assert video.shape == (episode["actions"] + 1, 64, 64, 3)
        assert np.abs(video[-1].astype(int) - video[0]).mean() > 1
        with av.open(str(demos / f"{view}.mp4")) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.average_rate) == ("h264", 80)
        masks = Image.open(demos / f"{view}.masks.png")
        assert (masks.mode, masks.size) == ("P", (64, 64))
        assert set(np.unique(np.array(masks))) == {0, 1, 2}


def test_the_same_arguments_give_the_same_files(demos: Path, tmp_path: Path):
    assert run(
        "--task", "button_press", "--num", "1", "--size", "64", "--out", str(tmp_path)
    ).stdout
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (demos / path.name).read_bytes(), path.name


def test_existing_demonstrations_are_kept_unless_overwritten(demos: Path):
    error = sentence(run("--task", "button_press", "--out", str(demos)))
    assert "--overwrite" in error


def test_an_unknown_task_is_one_sentence(tmp_path: Path):
    assert "did you mean" in sentence(run("--task", "buton_press", "--out", str(tmp_path / "x")))
    assert not (tmp_path / "x").exists()


SKYWARDS = f"""
import sys
sys.path.insert(0, {str(ROOT / "experiments")!r})
from relam_jax.envs.tasks import PRESETS, Camera, TaskSpec
skywards = (Camera("corner", (0.0, 0.6, 2.0), (0.0, 0.7, 5.0)),)
PRESETS["button_press"] = TaskSpec("button_press", "button-press-v3", cameras=skywards)
import record_demos
record_demos.main()
"""


@pytest.mark.usefixtures("demos")  # skips where no OpenGL works
def test_an_initial_state_whose_entities_no_camera_shows_is_no_demonstration(tmp_path: Path):
    words = ("--task", "button_press", "--num", "1", "--size", "64")
    result = run(*words, "--out", str(tmp_path), program=("-c", SKYWARDS))
    assert result.returncode == 1
    assert "initial state 0: no camera shows the gripper, next" in result.stderr
    assert "none of" in result.stderr.splitlines()[-1]
    assert {p.name for p in tmp_path.iterdir()} == {"masks.json"}


def test_without_a_renderer_it_says_which_package(tmp_path: Path):
    out = tmp_path / "x"
    error = sentence(run("--task", "button_press", "--out", str(out), MUJOCO_GL="disabled"))
    assert "libegl1" in error and "libosmesa6" in error
    assert not out.exists()


@pytest.mark.parametrize(
    ("task", "num", "limit"),
    [("drawer_open", 30, 8_000_000), ("push_cube", 24, 1_800_000), ("pick_cube", 24, 1_800_000)],
)
def test_the_committed_demonstrations_are_complete(task: str, num: int, limit: int):
    folder = ROOT / "videos" / task
    episodes = json.loads((folder / "demos.json").read_text())["episodes"]
    assert len(episodes) == num
    clips = sorted(p.name for p in folder.glob("*.mp4"))
    assert clips == [f"{i:03d}.cam{v}.mp4" for i in range(num) for v in range(2)]
    assert all((folder / c.replace(".mp4", ".masks.png")).exists() for c in clips)
    assert sum(p.stat().st_size for p in folder.iterdir()) < limit


def test_truth_follows_moving_pixels(demos: Path):
    """Queries on the button and the gripper end where their bodies are; the background stays."""
    for view in ("000.cam0", "000.cam1"):
        true = truth.load(demos / f"{view}.truth.npz")
        masks = np.array(Image.open(demos / f"{view}.masks.png"))
        rows, columns = np.nonzero(masks)
        queries = np.stack([columns + 0.5, rows + 0.5], axis=1) / 64
        tracks, visible = true.tracks(queries)
        assert tracks.shape == (len(true.xpos), len(queries), 2)
        assert visible.shape == tracks.shape[:2]
        np.testing.assert_allclose(tracks[0], queries, atol=1e-6)
        assert visible[0].mean() > 0.9
        body, local = true.body_id[rows, columns], true.local_xyz[rows, columns]
        last = true.xpos[-1, body] + np.einsum("qij,qj->qi", true.xmat[-1, body], local)
        np.testing.assert_allclose(tracks[-1], project(last, true.camera), atol=1e-4)
        moved = np.linalg.norm(tracks[-1] - tracks[0], axis=1)
        gripper = masks[rows, columns] == 1
        assert moved[gripper].min() > 0.1
        assert 0.005 < np.median(moved[~gripper]) < 0.1
    still, _ = true.tracks(np.array([[0.01, 0.99]]))
    assert np.ptp(still, axis=0).max() < 1e-6


def test_truth_knows_what_is_hidden():
    """A point on a plate slides behind a fixed wall (in the depth maps) and out of the picture."""
    camera = CameraPose(np.zeros(3), np.eye(3), 90.0)
    xpos = np.zeros((4, 1, 3))
    xpos[:, 0] = [[0, 0, -2], [0.8, 0, -2], [1.6, 0, -2], [2.4, 0, -2]]
    depth = np.full((4, 8, 8), 2.0, np.float16)
    depth[:, :, 6:] = 1.0  # the wall covers x > 0.75
    plate = truth.Truth(
        body_id=np.zeros((16, 16), np.int16),
        local_xyz=np.zeros((16, 16, 3), np.float32),
        xpos=xpos,
        xmat=np.tile(np.eye(3), (4, 1, 1, 1)),
        depth=depth,
        camera=camera,
    )
    tracks, visible = plate.tracks(np.array([[0.5, 0.5]]))
    np.testing.assert_allclose(tracks[:, 0, 0], [0.5, 0.7, 0.9, 1.1], atol=1e-6)
    np.testing.assert_array_equal(visible[:, 0], [True, True, False, False])
