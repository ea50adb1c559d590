"""make reproduce-metaworld: which jobs, what a failure stops, and killed it goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from relam_jax.report.cells import reward_name

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "experiments" / "reproduce.py"
CELL = "drawer_open-2-truth-relam-keypoints_proprio"
TINY = [
    *("--cells", CELL, "--seeds", "1", "--total_env_steps", "2400", "--num", "3"),
    *("--episodes", "2", "--workers", "1", "--record_args", "--size 64"),
    "--train_args",
    "--num_envs 4 --learning_starts 240 --episode_length 60 --eval_every 480 --eval_episodes 2 "
    "--replay_capacity 400 --sac.batch_size 32 --sac.widths 32 32 --keyframes.max_count 2 "
    "--fit.num_steps 20 --fit.eval_every 10 --fit.batch_size 4",
]


@pytest.fixture(scope="module", autouse=True)
def experiments():
    sys.path.insert(0, str(SCRIPT.parent))
    yield
    sys.path.remove(str(SCRIPT.parent))


def test_jobs_of_all_suites_share_videos_records_and_models(tmp_path):
    from harness import commands, make_jobs
    from reproduce import Args, chosen_cells

    args = Args(suite="all", out=tmp_path)
    cells = chosen_cells(args)
    jobs = make_jobs(cells, args)
    kinds = [name.split()[0] for name in jobs]
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    assert counts == {
        "record": 3 + 10,
        "track": 6 + 3 + 10,
        "anticipation": 6 + 3 + 10,
        "video": 3,
        "train": 135 + 36 + 6,
        "evaluate": 135 + 36 + 6,
    }
    names = list(jobs)
    assert all(names.index(n) < names.index(j.name) for j in jobs.values() for n in j.needs)
    assert len({job.log for job in jobs.values()}) == len(jobs)
    views = {
        name: jobs[f"track {name}"].command[-1]
        for name in ("drawer_open-1-truth", "door_open-1-truth", "door_open-2-truth")
    }
    assert list(views.values()) == ["cam1", "cam0", "truth"]
    [shared] = {
        word
        for job in jobs.values()
        if job.name.startswith(("train drawer_open-2-truth-diffusion", "video model drawer"))
        for word in job.command[job.command.index("--diffusion.model") + 1 :][:1]
    }
    assert shared == str(tmp_path / "video" / "drawer_open-2-truth"), "one model for all seeds"
    lines = commands(cells[0], jobs)
    assert [line.split()[1] for line in lines] == [
        *("experiments/record_demos.py", "-m", "experiments/fit_anticipation.py"),
        *("experiments/train.py", "experiments/evaluate.py"),
    ]


def test_choice_of_cells():
    from reproduce import Args, chosen_cells

    args = Args(suite="baselines", tasks="door_open", seeds=2, total_env_steps=10)
    cells = chosen_cells(args)
    assert {(c.task, c.num_seeds, c.env_steps) for c in cells} == {("door_open", 2, 10)}
    rewards = [
        "dense",
        "sparse",
        "final",
        "dacfo",
        "diffusion",
        "viper",
        "keypoint_diffusion",
        "oracle",
        "diffusion, flag",
    ]
    assert [reward_name(asdict(c)) for c in cells] == rewards
    with pytest.raises(ValueError, match="no cell has the task drawr: there are drawer_open"):
        chosen_cells(replace(args, tasks="drawr"))


def test_env_steps_of_a_log_that_is_being_written(tmp_path):
    from harness import logged_env_steps

    assert logged_env_steps(tmp_path) == 0
    (tmp_path / "train.csv").write_text("env_steps,reward\n")
    assert logged_env_steps(tmp_path) == 0
    (tmp_path / "train.csv").write_text("env_steps,reward\n960,0.1\n1920,0.2\n28")
    assert logged_env_steps(tmp_path) == 1920


def test_products_of_other_settings_are_refused(tmp_path):
    from fit_anticipation import fitted, settings
    from harness import recorded
    from train import parse

    assert not recorded(tmp_path, 3)
    (tmp_path / "demos.json").write_text('{"episodes": [1, 2]}')
    with pytest.raises(ValueError, match="holds 2 episodes, not 3: use --num 2"):
        recorded(tmp_path, 3)
    config, _ = parse(["--task", "drawer_open"])
    assert not fitted(tmp_path, config)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "settings.json").write_text(json.dumps(settings(config)))
    assert fitted(tmp_path, config)
    older = settings(config)
    del older["fit"]["num_clips"]  # a version before that field existed
    (tmp_path / "settings.json").write_text(json.dumps(older))
    assert fitted(tmp_path, config)
    with pytest.raises(ValueError, match="was fitted with other settings"):
        fitted(tmp_path, replace(config, fit=replace(config.fit, num_clips=5)))
    with pytest.raises(ValueError, match="was fitted with other settings"):
        fitted(tmp_path, replace(config, fit=replace(config.fit, num_steps=1)))


def test_settings_that_are_the_default_share_one_cell_and_models_are_shared(tmp_path):
    from harness import make_jobs
    from sensitivity import Args, chosen_settings

    args = Args(factors="form,min_motion,min_gap", seeds=1, total_env_steps=4000, out=tmp_path)
    settings = chosen_settings(args)
    assert [(value, cell.variant) for value, cell in settings["form"]] == [
        *(("linear", "form_linear"), ("gaussian", "form_gaussian"), ("tanh", "form_tanh")),
        ("exp", ""),
    ]
    assert [cell.variant for _, cell in settings["min_motion"]].count("") == 1
    assert all(cell.variant for _, cell in settings["min_gap"]), "none is the default selector"
    cells = list(dict.fromkeys(cell for rows in settings.values() for _, cell in rows))
    assert len(cells) == 1 + 3 + 4 + 3
    kinds = [name.split()[0] for name in make_jobs(cells, args)]
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    assert counts == {
        **{"record": 1, "track": 1, "anticipation": 1 + 4 + 3},
        **{"train": len(cells), "evaluate": len(cells)},
    }
    both = chosen_settings(replace(args, factors="min_gap,max_gap"))
    assert both["min_gap"][1] == (0.1, both["max_gap"][1][1]), "each at the other's default"
    assert chosen_settings(replace(args, factors="max_gap"))["max_gap"] == both["max_gap"]
    with pytest.raises(ValueError, match="no factor is called theta: there are min_motion"):
        chosen_settings(replace(args, factors="theta"))
    with pytest.raises(ValueError, match="--factors names none: there are min_motion"):
        chosen_settings(replace(args, factors=" ,"))


def start(tmp_path):
    command = [sys.executable, str(SCRIPT), *TINY]
    command += ["--out", str(tmp_path / "out"), "--results", str(tmp_path / "results")]
    quick = {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(
        command,
        env=os.environ | quick,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_from_nothing_to_a_table_with_a_kill_in_between(tmp_path):
    out, results = tmp_path / "out", tmp_path / "results"
    run = out / "runs" / CELL / "seed0"
    process = start(tmp_path)
    deadline = time.monotonic() + 400
    while not (run / "train.csv").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=120)
    if "no off-screen OpenGL" in errors:
        pytest.skip("no OpenGL back end works here")
    assert process.returncode == 1, output + errors
    assert "stopped; the same command goes on from here" in errors
    assert "stopped by SIGTERM" in run.with_name("seed0.log").read_text()
    partial = json.loads((results / f"{CELL}.json").read_text())
    assert not partial["complete"] and partial["success_any"] is None
    assert "partial" in (results / "table.md").read_text()

    made = [out / "videos/drawer_open/demos.json"]
    made += [out / "data/drawer_open-2-truth/dataset_info.json"]
    made += [out / "anticipation/drawer_open-2-truth/config.json"]
    before = [path.stat().st_mtime_ns for path in made]
    process = start(tmp_path)
    output, errors = process.communicate(timeout=400)
    assert process.returncode == 0, output + errors
    assert [path.stat().st_mtime_ns for path in made] == before, "nothing is made twice"
    assert "resumed" in run.with_name("seed0.log").read_text()
    result = json.loads((results / f"{CELL}.json").read_text())
    assert result["complete"] and result["episodes"] == 2
    assert result["seeds"][0]["curve"]["env_steps"] == [0, 480, 960, 1440, 1920, 2400]
    assert result["demonstrations"] == {"number": 3, "tracker": "truth", "segmenter": "masks"}
    assert len(result["anticipation"]["held_out_error"]) >= 1
    assert "| 1 × 2 |" in (results / "table.md").read_text()
    assert (results / "main-minutes.svg").exists()
