"""Cells of make reproduce-metaworld: thresholds, intervals, partial results, table and plots."""

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest

from relam_jax.logs import RunLog
from relam_jax.report.cells import (
    OUTCOMES,
    SUITES,
    Cell,
    collect_cell,
    first_reaching,
    median_reached,
    read_results,
    write_cell,
    written,
)
from relam_jax.report.reproduction import FIGURES, curves, spread, table, write_summary
from relam_jax.report.statistics import success_interval
from relam_jax.training.config import TrainConfig, to_json

CELL = Cell("drawer_open", 4000, num_seeds=3)
HARDWARE = {"cpu": "a CPU", "cores": 1}
EPISODES = 10


def make_run(out, cell, seed, success, outcomes=None, env_steps=4000):
    """A run with these evaluations, every 1000 env_steps and half a minute."""
    run = cell.run(out, seed)
    log = RunLog(run)
    for i, share in enumerate(map(float, success)):
        row = {"success": share, "success_end": share / 2, "stage": share, "minutes": 0.5 * i}
        log.write("eval", 1000 * i, row)
        log.write("train", 1000 * i, {"reward": share})
    log.close()
    (run / "config.json").write_text(json.dumps({"seed": seed, "out": str(run), "utd": 0.25}))
    if outcomes is not None:
        share = outcomes.count("1") / len(outcomes)
        evaluation = {
            "env_steps": env_steps,
            "episodes": len(outcomes),
            "episode_length": 500,
            "training_episode_length": 150,
            "env_steps_to_success": 60.0,
            "outcomes": {name: [outcomes] for name in OUTCOMES},
            "per_seed": [{name: share for name in (*OUTCOMES, "stages_met")}],
            "demonstrations": {"number": 30, "tracker": cell.tracker},
            "date": f"2026-11-2{seed}",
            "commit": "abc",
            "hardware": HARDWARE,
        }
        (run / "evaluation.json").write_text(json.dumps(evaluation))
    return run


def make_model(out, cell):
    folder = cell.anticipation(out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"test_error": [0.002, 0.004, 0.009]}')
    (folder / "fit.csv").write_text("env_steps,loss\n250,0.1\n")


@pytest.fixture
def out(tmp_path):
    """Two finished seeds and one that is not."""
    folder = tmp_path / "out"
    make_model(folder, CELL)
    make_run(folder, CELL, 0, [0, 0.4, 0.5, 0.9, 1.0], "1" * 10)
    make_run(folder, CELL, 1, [0, 0.0, 0.3, 0.6, 0.9], "1" * 6 + "0" * 4)
    make_run(folder, CELL, 2, [0, 0.0, 0.1])
    return folder


def test_the_first_evaluation_that_reaches_a_level():
    x, success = np.array([0.0, 10.0, 20.0, 30.0]), np.array([0.0, 0.5, 0.4, 0.96])
    assert first_reaching(x, success, 0.5) == 10
    assert first_reaching(x, success, 0.95) == 30
    assert first_reaching(x, success, 0.97) is None
    assert first_reaching(x[:0], success[:0], 0.5) is None


def test_a_seed_that_never_gets_there_counts_as_later_than_any():
    assert median_reached([10.0, 30.0, 20.0]) == 20
    assert median_reached([10.0, None, 30.0]) == 30
    assert median_reached([10.0, None]) is None
    assert median_reached([]) is None


def test_a_partial_cell_is_that_of_its_finished_seeds_and_says_so(out):
    cell = collect_cell(CELL, out, ["a command"])
    assert not cell["complete"] and cell["finished_seeds"] == [0, 1]
    success = np.array([[True] * 10, [True] * 6 + [False] * 4])
    assert cell["success_any"] == success_interval(success)._asdict()
    assert cell["success_any"]["mean"] == 0.8
    assert cell["reached"]["50"] == {
        "seeds": 2,
        "median_env_steps": 2500,
        "median_minutes": 1.25,
    }
    assert cell["reached"]["95"]["seeds"] == 1
    assert cell["reached"]["95"]["median_env_steps"] is None
    assert [s["reached"]["95"]["env_steps"] for s in cell["seeds"]] == [4000, None, None]
    assert cell["seeds"][2]["curve"]["success"] == [0, 0, 0.1]
    assert cell["anticipation"]["median"] == 0.004
    assert cell["machine"] == [HARDWARE] and cell["date"] == "2026-11-21"
    assert cell["train_config"] == {"utd": 0.25} and cell["commands"] == ["a command"]
    row = table([cell]).splitlines()[2]
    assert "| 2 of 3 × 10 | 4k | 80 [" in row and "(partial)" in row and row.endswith("| abc |")
    assert "| 2k (2 of 2) | – (1 of 2) | 1.2 (2 of 2) | – (1 of 2) | 4.0 |" in row


def test_a_complete_cell(out):
    make_run(out, CELL, 2, [0, 0.0, 1.0, 1.0, 1.0], "1" * 10)
    cell = collect_cell(CELL, out)
    assert cell["complete"] and cell["success_any"]["mean"] == pytest.approx(26 / 30)
    assert cell["reached"]["95"]["median_env_steps"] == 4000
    row = table([cell]).splitlines()[2]
    assert "| 3 × 10 | 4k | 87 [" in row and "partial" not in row


def test_an_evaluation_of_a_smaller_budget_does_not_count(out):
    cell = collect_cell(replace(CELL, env_steps=5000), out)
    assert cell["finished_seeds"] == [] and cell["success_any"] is None
    assert "| 0 of 3 × – | 5k | – (partial) | – | – | – | – | – | 4.0 | – |" in table([cell])


def test_seeds_of_different_settings_are_named(out):
    assert collect_cell(CELL, out)["one_config"]
    (CELL.run(out, 1) / "config.json").write_text('{"seed": 1, "out": "x", "utd": 0.5}')
    assert "(settings differ between seeds)" in table([collect_cell(CELL, out)])


def test_a_field_that_an_earlier_version_did_not_have_counts_as_its_default(out):
    config = json.loads(to_json(TrainConfig())) | {"utd": 0.25}
    (CELL.run(out, 1) / "config.json").write_text(json.dumps(config))
    assert collect_cell(CELL, out)["one_config"]
    config["dacfo"]["batch_size"] += 1
    (CELL.run(out, 1) / "config.json").write_text(json.dumps(config))
    assert not collect_cell(CELL, out)["one_config"]


def test_different_numbers_of_episodes_are_refused(out):
    make_run(out, CELL, 2, [0, 1.0], "1" * 5)
    with pytest.raises(ValueError, match="different numbers of episodes \\(5, 10\\)"):
        collect_cell(CELL, out)


def test_curves_are_of_finished_seeds_cut_to_a_common_length(out):
    x, success = curves(collect_cell(CELL, out), "env_steps")
    assert x.tolist() == [0, 1000, 2000, 3000, 4000]
    assert success.tolist() == [[0, 0.4, 0.5, 0.9, 1.0], [0, 0, 0.3, 0.6, 0.9]]
    x, success = curves(collect_cell(replace(CELL, env_steps=5000), out), "minutes")
    assert x.tolist() == [0, 0.5, 1.0] and success.shape == (3, 3)


def test_files_of_the_results(out, tmp_path):
    results = tmp_path / "results"
    dense = replace(CELL, reward="dense", num_seeds=1)
    make_run(out, dense, 0, [0, 0.2, 0.4, 0.8, 1.0], "1" * 10)
    assert not write_cell(replace(CELL, task="door_open"), out, results)
    assert write_cell(dense, out, results) and write_cell(CELL, out, results)
    write_summary(results)
    raw = results / "raw" / CELL.name
    assert (raw / "seed0.eval.csv").read_bytes() == (CELL.run(out, 0) / "eval.csv").read_bytes()
    assert (raw / "seed2.train.csv").exists() and (raw / "anticipation.fit.csv").exists()
    found = read_results(results)
    assert [r["cell"] for r in found] == [CELL.name, dense.name], "in the order of the suites"
    assert found[0] == json.loads(json.dumps(collect_cell(CELL, out)))
    assert (results / "table.md").read_text() == table(found)
    for unit in ("env_steps", "minutes"):
        text = (results / f"main-{unit}.svg").read_text()
        words = {e.text for e in ElementTree.fromstring(text).iter() if e.tag.endswith("text")}
        assert {"drawer_open", "relam (2/3 seeds)", "dense"} <= words
        for variable in ("--muted", "--line", "--s0", "--s1"):
            assert text.count(f"{variable}:") == 2, "defined for light and dark"
    assert not (results / "ten-minutes.svg").exists()


def test_labels_keep_apart():
    ys = [1.0, 1.0, 0.98, 0.3, 0.0, 0.0]
    placed = spread(ys, 0.1)
    assert placed[0] == 1.0 and placed[3] == 0.3
    assert np.all(np.diff(sorted(placed)) >= 0.1 - 1e-9) and min(placed) >= 0
    assert spread([]) == []


def test_suites():
    cells = [cell for some in SUITES.values() for cell in some]
    names = [cell.name for cell in cells]
    assert len(set(names)) == len(names)
    assert {k: (len(v), sum(c.num_seeds for c in v)) for k, v in SUITES.items()} == {
        "main": (9, 45),
        "one_view": (3, 15),
        "baselines": (27, 81),
        "ten": (10, 30),
        "tracked": (2, 6),
        "maniskill": (11, 37),
    }
    assert {c.name for f in FIGURES.values() for c in f} == set(names)
    for figure in FIGURES.values():
        assert len({c.label for c in figure}) <= 8, "a colour each"


def test_seeds_of_another_machine_stay_if_they_are_to_be_added_to(out, tmp_path):
    results, here = tmp_path / "results", tmp_path / "here"
    write_cell(CELL, out, results)
    make_model(here, CELL)
    make_run(here, CELL, 1, [0, 0.0, 0.0, 0.0, 0.5], "10" * 5)
    make_run(here, CELL, 2, [0, 0.0, 0.0, 0.0, 0.1], "1" + "0" * 9)
    assert write_cell(CELL, here, results, add=True)
    [found] = read_results(results)
    assert found["complete"] and found["one_config"]
    shares = [s["evaluation"]["success_any"] for s in found["seeds"]]
    assert shares == [1.0, 0.5, 0.1], "this machine's where it has them"
    assert (results / "raw" / CELL.name / "seed0.eval.csv").exists()
    assert written(replace(CELL, env_steps=9000), results) is None
    assert write_cell(CELL, here, results)
    assert read_results(results)[0]["finished_seeds"] == [1, 2]
