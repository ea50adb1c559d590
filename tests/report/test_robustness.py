"""robustness.json: measured once, in pieces or at once, of one checkpoint; and its page."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from relam_jax.envs.shifts import NO_SHIFT, Shift
from relam_jax.report import robustness
from relam_jax.report.build import write_report
from relam_jax.report.evaluation import play
from relam_jax.report.robustness import FILE, Subject, measure_robustness, planned
from relam_jax.report.run_folder import read_config
from relam_jax.report.shift_map import robustness_markdown
from relam_jax.training.config import TrainConfig
from tests.report.conftest import untrained_policies, write_config
from tests.report.test_report import check

EPISODES, LENGTH = 2, 15


def measure(run, out, factors=("keypoint_noise",), **changes):
    options = {"keypoints": None, "episodes": EPISODES, "env_steps": LENGTH, "out": out}
    return measure_robustness(run, factors, **(options | changes))


def told(row):
    return {k: v for k, v in row.items() if k not in ("seconds", "date")}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, model):
    """One seed, so that policy and expert share what is compiled."""
    return untrained_policies(tmp_path_factory.mktemp("single") / "run", model, 1)


@pytest.fixture(scope="module", autouse=True)
def subject(trained):
    """One for all tests: most of its time is compilation."""
    made = Subject(trained, read_config(trained), EPISODES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(robustness, "Subject", lambda *_: made)
        yield made


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory):
    """Measured at once."""
    out = tmp_path_factory.mktemp("robustness") / FILE
    measure(trained, out)
    return out


def test_a_row_a_shift_that_is_never_measured_again(whole, trained, monkeypatch):
    rows = json.loads(whole.read_text())["rows"]
    levels = [(row["factor"], row["level"]) for row in rows]
    noise = "keypoint_noise"
    assert levels == [("none", 0.0), (noise, 0.002), (noise, 0.005), (noise, 0.01)]
    assert all([len(x) for x in row["outcomes"]] == [EPISODES] for row in rows)
    assert rows[0]["plan_error"] > 0 and rows[0]["expert_success"] == 0, "15 env_steps open nothing"
    assert rows[1]["plan_error"] is None, "noise after the first frame does not reach the planner"
    before = whole.read_bytes()
    monkeypatch.setattr(robustness, "_row", lambda *_: pytest.fail("measured again"))
    measure(trained, whole)
    assert whole.read_bytes() == before


def test_a_killed_measurement_goes_on(whole, trained, tmp_path, monkeypatch):
    out, real, calls = tmp_path / "new" / FILE, robustness._row, []

    def dies(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(robustness, "_row", dies)
    with pytest.raises(KeyboardInterrupt):
        measure(trained, out)
    assert len(json.loads(out.read_text())["rows"]) == 2
    measure(trained, out)
    assert len(calls) == 5
    rows = [json.loads(path.read_text())["rows"] for path in (out, whole)]
    assert [told(row) for row in rows[0]] == [told(row) for row in rows[1]]


def test_simulators_are_swapped_without_a_trace(trained, subject):
    """Bit-equal to experiments/evaluate.py, before and after a shift."""
    config = replace(read_config(trained), episode_length=LENGTH)
    expected = play(trained, config, EPISODES).evaluation
    shifts = (NO_SHIFT, Shift("camera_angle", 10.0), Shift("mass", 1.0))
    first, moved, last = (subject.play(config, shift) for shift in shifts)
    assert np.array_equal(first.keypoint_return, expected.keypoint_return)
    assert np.array_equal(last.keypoint_return, expected.keypoint_return)
    assert not np.array_equal(moved.keypoint_return, expected.keypoint_return)


def test_what_does_not_apply_is_not_measured():
    assert planned(("light_colour", "blur", "image_noise"), "projected", "metaworld", False) == [
        NO_SHIFT
    ]
    tracked = planned(("keypoint_noise", "blur"), "tracked", "metaworld", False)
    assert [s.factor for s in tracked] == ["none"] + 3 * ["blur"]
    for occlusion, first in ((False, 0.0), (True, 0.05)):
        assert planned(("occluder",), "projected", "metaworld", occlusion)[1].level == first


def test_another_checkpoint_or_evaluation_is_refused(whole, trained, run, tmp_path):
    with pytest.raises(ValueError, match="2 episodes of 15 env_steps: ask for the same"):
        measure(trained, whole, episodes=3)
    with pytest.raises(ValueError, match="--env_steps 1 to 500, not 2 and 501"):
        measure(trained, whole, env_steps=501)
    with pytest.raises(ValueError, match="unknown factor"):
        measure(trained, whole, factors=("colr",))
    other = json.loads(whole.read_text())
    other["checkpoint"]["sha256"] = "0"
    (tmp_path / FILE).write_text(json.dumps(other))
    with pytest.raises(ValueError, match="another checkpoint"):
        measure(trained, tmp_path / FILE)
    (tmp_path / FILE).write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        measure(trained, tmp_path / FILE)
    script = [sys.executable, "experiments/robustness.py", "--run", str(run)]
    failed = subprocess.run(script, capture_output=True, text=True)
    assert failed.returncode == 2 and "no checkpoint in" in failed.stderr
    assert "Traceback" not in failed.stderr and len(failed.stderr.splitlines()) == 1


def row(factor, level, successes, keypoints="projected"):
    share = successes.count("1") / 4
    interval = {"mean": share, "low": share / 2, "high": share}
    return {
        "keypoints": keypoints,
        "factor": factor,
        "level": level,
        "success": interval,
        "success_in_time": interval,
        "stages_met": interval,
        "plan_error": 0.0123 if factor == "camera_angle" else None,
        "expert_success": 1.0,
        "episodes": 4,
        "env_steps": 500,
        "outcomes": [successes],
    }


def test_the_page_shows_what_was_measured_and_says_what_does_not_apply(tmp_path):
    run = write_config(TrainConfig(out=str(tmp_path / "run"), data=str(tmp_path)))
    out = tmp_path / "report.html"
    write_report([run], out)
    assert "obustness" not in out.read_text()
    rows = [
        row("none", 0.0, "1111"),
        row("camera_angle", -5.0, "0111"),
        row("occluder", 0.0, "0011"),
        row("occluder", 0.2, "0001"),
        row("none", 0.0, "1110", "tracked"),
        row("blur", 2.0, "0011", "tracked"),
    ]
    table = {"task": "drawer_open", "simulator": "metaworld", "checkpoint": {}, "num_seeds": 1}
    (run / FILE).write_text(json.dumps(table | {"rows": rows}))
    write_report([run], out)
    text = out.read_text()
    page = check(text)
    assert "robustness" in page.ids and text.count('class="heat"') == 2
    tables = text.split('class="heat"')
    projected, tracked = (" ".join(part.split()) for part in tables[1:])
    assert 'style="--p: 45%"><b>75 %</b><small>−5°' in projected
    assert 'class="same" style="--p: 30%"><b>50 %</b><small>0<' in projected, "the rays alone"
    assert "0.0123" in projected and "not measured" in projected
    heat = projected.split("</table>")[0]
    assert heat.count("projected keypoints are geometry") == 9
    assert heat.count("<tr>") == 16
    assert "tracked keypoints get the noise of their images" in tracked
    assert "<small>2 px" in tracked
    lines = robustness_markdown(run / FILE).splitlines()
    assert "| camera angle |  | −5°: 75 |  | none: 100 |  |  |  |" in lines
    assert "| occluder |  |  |  | 0: 50 |  |  | 0.2: 25 |" in lines
    assert "| blur |  |  |  | none: 75 |  | 2 px: 50 |  |" in lines
    assert not any(line.startswith("| friction") for line in lines), "not measured"
    (run / FILE).write_text("{")
    assert any("damaged" in sentence for sentence in write_report([run], out))
