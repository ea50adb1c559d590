"""Reading run folders that are being written; the command that makes a config; provenance."""

import importlib.util
import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from relam_jax.presets import preset
from relam_jax.report.run_folder import command_line, read_csv, read_run
from relam_jax.training.config import TrainConfig
from relam_jax.training.provenance import append_provenance, read_provenance
from tests.report.conftest import write_config


def test_csv_without_the_row_that_is_being_written(tmp_path):
    path = tmp_path / "eval.csv"
    path.write_text("env_steps,success\n0,0.5\n10,0.75\n20,0.")
    assert read_csv(path)["success"].tolist() == [0.5, 0.75, 0.0]
    path.write_text("env_steps,success\n0,0.5\n10,0.75\n2")
    assert read_csv(path)["env_steps"].tolist() == [0, 10]
    path.write_text("env_steps,success\n")
    assert read_csv(path) == {}
    path.write_text("")
    assert read_csv(path) == {}
    assert read_csv(tmp_path / "none.csv") == {}


def test_command_line_makes_the_config_again():
    spec = importlib.util.spec_from_file_location("train", Path("experiments/train.py"))
    train = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(train)
    default = preset("window_open")
    config = replace(
        default,
        out="runs/a b",
        num_seeds=3,
        occlusion=True,
        reward="final",
        sac=replace(default.sac, widths=(64, 32), gamma=0.9),
        selection=replace(default.selection, goal_entities=("goal",), num_keypoints=4),
    )
    words = shlex.split(command_line(config))
    assert words[:2] == ["python", "experiments/train.py"]
    assert train.parse(words[2:]) == (config, False)
    assert command_line(default) == "python experiments/train.py --task window_open"


def test_no_run_and_damaged_files_are_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"no run at .* \(no config.json\)"):
        read_run(tmp_path)
    run = write_config(TrainConfig(out=str(tmp_path / "x")))
    (run / "evaluation.json").write_text('{"success_any": ')
    with pytest.raises(ValueError, match=r"evaluation.json is damaged .* evaluate again"):
        read_run(run)


def test_provenance_keeps_every_start(tmp_path):
    assert read_provenance(tmp_path) == []
    append_provenance(tmp_path)
    append_provenance(tmp_path)
    starts = read_provenance(tmp_path)
    assert len(starts) == 2
    assert set(starts[0]) == {"date", "commit", "hardware", "versions"}
    assert starts[0]["hardware"]["cores"] >= 1
    assert json.dumps(starts[0])
    assert np.all([s["versions"]["mujoco"] for s in starts])
