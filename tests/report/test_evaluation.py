"""A real checkpoint, evaluated and reported as the command lines do it."""

import json
import subprocess
import sys

import av
import numpy as np
import pytest
from PIL import Image

from relam_jax.envs import make_env
from relam_jax.envs.metaworld import MetaWorldEnv
from relam_jax.report.build import write_report
from relam_jax.report.evaluation import (
    NO_RENDERER,
    Outcome,
    evaluate_run,
    first_failures,
    in_words,
    write_videos,
)
from relam_jax.report.overlay import PICTURE_SIDE, Watch
from relam_jax.reward.stage_machine import Goal
from relam_jax.training.config import TrainConfig
from tests.report.conftest import STAGES
from tests.report.test_report import check

EPISODES = 2


def test_evaluation_with_videos_and_their_report(trained, capsys):
    result = evaluate_run(trained, EPISODES, True, None)
    assert result == json.loads((trained / "evaluation.json").read_text())
    assert (result["num_seeds"], result["episodes"]) == (2, EPISODES)
    assert result["env_steps"] == 60
    assert [len(row) for row in result["outcomes"]["success_any"]] == [EPISODES] * 2
    share = np.mean([[int(x) for x in row] for row in result["outcomes"]["success_any"]])
    assert result["success_any"]["mean"] == pytest.approx(share)
    in_time = result["outcomes"]["success_in_time"]
    pairs = zip("".join(in_time), "".join(result["outcomes"]["success_any"]), strict=True)
    assert all(early <= late for early, late in pairs)
    assert (result["episode_length"], result["training_episode_length"]) == (500, 15)
    assert result["success_any"]["low"] <= share <= result["success_any"]["high"]
    assert result["keypoint_source"] == "projected"
    assert result["views"] == ["cam0", "cam1"]
    assert result["demonstrations"]["tracker"] is None
    assert {"cpu", "cores"} <= set(result["hardware"])

    missing = write_report([trained], trained / "report.html")
    assert sum("no data set at nowhere" in m for m in missing) == 3
    page = check((trained / "report.html").read_text())
    if result["videos"]:
        assert result["videos"] == ["evaluation.seed0.mp4", "evaluation.seed1.mp4"]
        with av.open(str(trained / result["videos"][1])) as video:
            frames = [f.to_ndarray(format="rgb24") for f in video.decode(video=0)]
        assert len(frames) == -(-500 // 3) + 1, "the benchmark's time, and the last state"
        assert frames[0].shape[1] == 2 * 384
        assert page.tags.count("video") == 2
        assert Image.open(trained / "evaluation.seed1.jpg").height == PICTURE_SIDE
    else:  # no renderer on this machine
        assert capsys.readouterr().out.count(NO_RENDERER) == 1
        assert any("evaluate.py" in m for m in missing)


def test_a_machine_without_renderer_gives_one_notice(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(MetaWorldEnv, "render", lambda self, index, view: None)
    watch = Watch(make_env("drawer_open", 2, seed=0, episode_length=6), [0, 1])
    watch.reset()
    watch.follow(np.tile(np.arange(4), (2, 2, 2, 1)))
    while not watch.step(np.zeros((2, 4))).truncated.all():
        pass
    watch.reset()  # as a GoalEnv does by itself; the next episode is not watched
    watch.follow(np.tile(np.arange(4), (2, 2, 2, 1)))
    watch.close()
    assert len(watch.states) == len(watch.images) == 3
    goals = Goal(
        np.zeros((2, STAGES, 2, 2, 4, 2)),
        np.ones((2, 2, 2, 4), bool),
        np.full(2, 3),
        np.full((2, STAGES, 2, 2), 0.02),
        np.full((2, STAGES, 2, 2), 0.02),
        np.zeros((2, STAGES, 2, 2)),
        np.ones((2, STAGES, 2, 2)),
    )
    outcome = Outcome(None, 60, watch, goals)
    names = ["seed0", "seed1"]
    assert write_videos(tmp_path / "evaluation.json", TrainConfig(), outcome, names) == []
    assert capsys.readouterr().out.strip() == NO_RENDERER
    assert list(tmp_path.iterdir()) == []


def test_the_first_failure_of_a_seed_is_shown_unless_its_first_episode_failed():
    success = np.array([[1, 1, 0, 0], [0, 1, 1, 1], [1, 1, 1, 1]], bool)
    assert first_failures(success) == [(0, 2)]
    assert in_words("seed0_failed2") == "seed 0, failed episode 2"


def test_what_cannot_be_evaluated_is_one_sentence(trained, run):
    with pytest.raises(ValueError, match="--episodes must be at least 1"):
        evaluate_run(trained, 0, False, None)
    with pytest.raises(ValueError, match="no checkpoint in"):
        evaluate_run(run, 1, False, None)


def test_check_plan_prints_a_row_a_subgoal_and_refuses_what_is_no_run(trained, tmp_path):
    script = [sys.executable, "experiments/check_plan.py", "--episodes", "2", "--env_steps", "9"]
    done = subprocess.run([*script, "--run", str(trained)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    header, *rows = done.stdout.splitlines()
    assert header.split("  ")[0] == "subgoal" and len(rows) == STAGES
    nearest = np.array([row.split()[2:] for row in rows], float)
    assert nearest.shape == (STAGES, 4) and (nearest >= 0).all() and (nearest < 1).all()
    failed = subprocess.run([*script, "--run", str(tmp_path)], capture_output=True, text=True)
    assert failed.returncode == 2 and "Traceback" not in failed.stderr
