"""Killed at any moment, a run goes on bit for bit; what cannot go on says so in one sentence."""

import os
import runpy
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from relam_jax.logs import RunLog
from relam_jax.training.checkpoint import Checkpoints
from relam_jax.training.config import TrainConfig, from_json, to_json

ROOT = Path(__file__).parents[2]
ARGS = [
    "--task=drawer-open-v3",
    "--num_envs=4",
    "--num_seeds=2",
    "--total_env_steps=960",
    "--learning_starts=240",
    "--episode_length=60",
    "--eval_every=480",
    "--eval_episodes=3",
    "--replay_capacity=400",
    "--sac.batch_size=32",
    "--sac.widths",
    "32",
    "32",
]


def command(out, anticipation, *more):
    script = str(ROOT / "experiments" / "train.py")
    return [sys.executable, script, *ARGS, f"--out={out}", f"--anticipation={anticipation}", *more]


def run(out, anticipation, *more):
    return subprocess.run(
        command(out, anticipation, *more),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=900,  # a run that waits for ever is to fail by its name
    )


def refusal(monkeypatch, capfd, out, anticipation, *more):
    """The sentence of a command that must refuse, run in this process: to start one takes
    seconds."""
    script, *arguments = command(out, anticipation, *more)[1:]
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as exit:
        runpy.run_path(script, run_name="__main__")
    said = capfd.readouterr().err
    assert exit.value.code == 2 and len(said.strip().splitlines()) == 1
    return said


def final_state(run_folder):
    checkpoints = Checkpoints(run_folder)
    step = checkpoints.latest()
    import orbax.checkpoint as ocp

    state = checkpoints.manager.restore(
        step, args=ocp.args.Composite(state=ocp.args.StandardRestore())
    )
    checkpoints.close()
    return step, state["state"]


def assert_same(a, b, path=""):
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            if key != "seconds":
                assert_same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, list | tuple):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{path}/{i}")
    else:
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=path)


@pytest.fixture(scope="module")
def options(records_folder):
    """Arguments of each kind of run."""
    records = f"--data={records_folder}"
    videos = f"--videos={records_folder.parent / 'drawer_open'}"
    steps = ["--diffusion.vq_steps=20", "--diffusion.fit_steps=20", "--diffusion.batch_size=4"]
    return {
        "relam": [],
        "dacfo": ["--reward=dacfo", records],
        "diffusion": ["--reward=diffusion", records, videos, *steps],
        "keypoint_diffusion": ["--reward=keypoint_diffusion", records, *steps],
        "rgb": [
            *("--observation=rgb", "--sac.batch_size=2", "--utd=0.1", "--replay_capacity=40"),
            *("--reward=dacfo", "--dacfo.batch_size=2", records, videos),
        ],
    }


def finished(kind, anticipation_folder, options, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    result = run(out, anticipation_folder, *options[kind])
    assert result.returncode == 0, result.stderr
    return out


@pytest.fixture(scope="module")
def whole(anticipation_folder, options, tmp_path_factory):
    return finished("relam", anticipation_folder, options, tmp_path_factory)


@pytest.mark.parametrize("kind", ["relam", "dacfo", "diffusion", "keypoint_diffusion", "rgb"])
def test_kill_nine_and_resume_equals_an_uninterrupted_run(
    kind, anticipation_folder, options, tmp_path, tmp_path_factory, request
):
    if kind == "relam":
        whole = request.getfixturevalue("whole")
    else:
        whole = finished(kind, anticipation_folder, options, tmp_path_factory)
    out, words = tmp_path / "run", options[kind]
    if "diffusion" in kind:
        words = [*words, f"--diffusion.model={whole / 'diffusion'}"]
    process = subprocess.Popen(
        command(out, anticipation_folder, "--checkpoint_minutes=0.001", *words),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 240
    while not any((out / "checkpoints").glob("[4-8]??")) and time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    process.kill()
    process.wait()
    resumed = run(out, anticipation_folder, "--resume", *words)
    assert resumed.returncode == 0 and "resumed" in resumed.stdout, resumed.stderr
    (step, a), (other, b) = final_state(whole), final_state(out)
    assert step == other == 960
    assert_same(a, b)
    assert ("discriminator" in a) == (kind in ("dacfo", "rgb"))
    assert ("shift" in a["env"]) == (kind in ("dacfo", "keypoint_diffusion"))
    assert ("frames" in a["env"]) == (kind in ("diffusion", "rgb"))
    assert ("film" in a) == (kind == "rgb")
    assert ("video_pay" in a["env"]) == ("diffusion" in kind)
    without_times = [row.rsplit(",", 2)[0] for row in (whole / "eval.csv").read_text().split()]
    assert [r.rsplit(",", 2)[0] for r in (out / "eval.csv").read_text().split()] == without_times


def test_sigterm_writes_a_checkpoint(anticipation_folder, tmp_path):
    out = tmp_path / "run"
    process = subprocess.Popen(
        command(out, anticipation_folder, "--total_env_steps=1000000"),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 240
    while not (out / "train.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1 and "go on with --resume" in errors
    assert Checkpoints(out).latest() is not None


def test_an_existing_run_is_neither_overwritten_nor_silently_changed(
    whole, anticipation_folder, monkeypatch, capfd
):
    refused = partial(refusal, monkeypatch, capfd, whole, anticipation_folder)
    assert "add --resume" in refused()
    assert "sac.gamma: 0.9 → 0.5" in refused("--resume", "--sac.gamma=0.5")


@pytest.mark.parametrize(
    "arguments,sentence",
    [
        (["--task=drawr-open"], "did you mean"),
        (["--task=window-close-v3", "--anticipation="], "run `make preprocess"),
        (["--data=/nonexistent", "--anticipation="], "no keypoint records at /nonexistent"),
        (["--episode_length=50"], "no multiple of --action_repeat"),
        (["--episode_length=501"], "at most 500, the horizon of drawer_open"),
        (["--arm_scale=1.5"], "--arm_scale must be in (0, 1]"),
        (["--anticipation=/nonexistent"], "no anticipation model at"),
        (["--reward=dacfo", "--data=/nonexistent"], "there is no data set at /nonexistent"),
        (["--reward=diffusion", "--data=/nonexistent"], "there is no data set at /nonexistent"),
        (["--reward=viper", "--observation=rgb"], "is for observations without frames"),
        (["--observation=rgb", "--replay_capacity=1000000"], "would take 85 GB, more than 16"),
        (["--reward=oracle", "--keypoints=tracked"], "--reward oracle needs --keypoints projected"),
        (["--tracking.reseed"], "add --keypoints tracked"),
        (
            [
                "--keypoints=tracked",
                "--tracking.reseed",
                "--tracking.tracker=cotracker3_online",
            ],
            "--tracking.reseed is for lucas_kanade",
        ),
    ],
)
def test_wrong_arguments_give_one_sentence(
    anticipation_folder, tmp_path, arguments, sentence, monkeypatch, capfd
):
    out = tmp_path / "run"
    assert sentence in refusal(monkeypatch, capfd, out, anticipation_folder, *arguments)
    assert not (out / "config.json").exists()


def test_empty_data_folder_gives_one_sentence(anticipation_folder, tmp_path, monkeypatch, capfd):
    (tmp_path / "empty").mkdir()
    arguments = ["--anticipation=", f"--data={tmp_path / 'empty'}"]
    said = refusal(monkeypatch, capfd, tmp_path / "run", anticipation_folder, *arguments)
    assert f"{tmp_path / 'empty'} is empty: run" in said


def test_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    checkpoints, config = Checkpoints(tmp_path), TrainConfig()
    checkpoints.save(100, {"x": np.arange(3)}, config)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.manager, "save", full)
        with pytest.raises(OSError, match=r"No space left on device.*--resume"):
            checkpoints.save(200, {"x": np.arange(3)}, config)
    assert checkpoints.latest() == 100
    np.testing.assert_array_equal(
        checkpoints.restore({"x": np.zeros(3, int)}, config)["x"], np.arange(3)
    )


def test_incompatible_checkpoints_are_named(tmp_path):
    checkpoints, config = Checkpoints(tmp_path), TrainConfig(num_envs=16)
    checkpoints.save(100, {"x": np.arange(3)}, config)
    with pytest.raises(ValueError, match="num_envs: 16 → 8"):
        checkpoints.restore({"x": np.arange(3)}, replace(config, num_envs=8))
    with pytest.raises(ValueError, match="does not fit this version"):
        checkpoints.restore({"x": np.arange(3), "y": np.arange(2)}, config)


def test_config_survives_json():
    config = replace(TrainConfig(), num_envs=3)
    assert from_json(to_json(config)) == config
    with pytest.raises(ValueError, match="does not fit this version"):
        from_json('{"unknown": 1}')


def test_rows_younger_than_the_checkpoint_are_dropped(tmp_path):
    log = RunLog(tmp_path)
    for step in (10, 20, 30):
        log.write("train", step, {"loss": step / 7})
    log.close()
    (tmp_path / "train.csv").open("a").write("40,0.")  # cut short by a kill
    log = RunLog(tmp_path, {"train": 20})
    log.write("train", 25, {"loss": 1.0})
    log.close()
    rows = (tmp_path / "train.csv").read_text().split()
    assert [r.split(",")[0] for r in rows] == ["env_steps", "10", "20", "25"]
