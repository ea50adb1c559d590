"""The page: whole, self-contained, escaped, and honest about what is missing."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from relam_jax.diffusion.fit import DiffusionConfig
from relam_jax.report.build import duration, write_report
from relam_jax.report.run_folder import read_run
from relam_jax.report.timing import timing_section
from relam_jax.training.config import TrainConfig, from_json, to_json
from tests.report.conftest import STAGES, write_config

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Reader(HTMLParser):
    """Collects links, identifiers, and checks that tags are closed in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.links, self.ids, self.tags = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href", "poster")]
        self.ids += [v for k, v in attrs if k == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check(text):
    """Well-formed, and without anything from elsewhere."""
    page = Reader(text)
    for link in page.links:
        assert link.startswith(("#", "data:")), link
        assert not link.startswith("#") or link[1:] in page.ids, link
    assert "script" not in page.tags and "link" not in page.tags
    assert not re.search(r"@import|url\((?!#|data:)", text)
    assert not re.search("#0000[ab]|#01010|#02020", text), "a colour that is no page variable"
    return page


@pytest.fixture(scope="session")
def whole(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "report.html"
    missing = write_report([run], out)
    return out.read_text(), missing


def test_the_numbers_of_the_page_are_written_as_json(whole, run, tmp_path):
    write_report([run], tmp_path / "page.html")
    found = json.loads((tmp_path / "page.json").read_text(), parse_constant=pytest.fail)
    assert found["keypoints"]["quality"]["object"]["error"] is None
    assert found["anticipation"]["stages"][0]["free"] > 0
    shown = [f"<td>{row['name']}</td>" in whole[0] for row in found["true_progress"]["table"]]
    assert shown == [True] * 4
    assert found["made"]["commit"]


def test_a_whole_run_gives_all_sections_but_the_videos(whole, run):
    text, missing = whole
    check(text)
    assert len(missing) == 1 and "evaluate.py --run" in missing[0]
    assert "65\u202f%" in text, "mean of the last evaluation: 0.4 and 0.9"
    assert text.count("frame0") >= 2 + STAGES
    assert "held-out clips" in text
    assert "12 s" in text, "the time of training the anticipation model"
    assert "µs an environment" in text
    assert "Quality on 1 held-out clips" in text and "Apart across clips" in text
    assert text.count("<td>given up</td>") == 1, "episodes were played for the page"
    assert "Each run's model" not in text, "there is only one"
    assert "python experiments/train.py --task drawer_open" in text
    assert len(text) < 1_000_000


def test_the_page_says_that_the_model_reports_other_errors(whole):
    assert "states other errors" in whole[0]


def copy(run, to, **changes):
    shutil.copytree(run, to)
    config = from_json((run / "config.json").read_text())
    (to / "config.json").write_text(to_json(replace(config, out=str(to), **changes)))
    return to


def test_without_a_model_the_rest_stays(run, tmp_path):
    other = copy(run, tmp_path / "b", anticipation=str(tmp_path / "nomodel"))
    missing = write_report([other], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    check(text)
    assert sum("no anticipation model" in m for m in missing) == 4
    assert "Success at any step" in text


def test_a_run_that_has_only_begun(tmp_path):
    name = "<b>&\"'"
    run = write_config(
        TrainConfig(out=str(tmp_path / name), data=str(tmp_path / "d"), anticipation="<i>")
    )
    out = tmp_path / "report.html"
    missing = write_report([run], out)
    text = out.read_text()
    check(text)
    assert "<b>&\"'" not in text and "<i>" not in text
    assert any("no evaluation was logged yet" in m for m in missing)
    assert "has not been evaluated yet" in text


def test_several_runs_share_the_plots(run, tmp_path):
    begun = write_config(replace(TrainConfig(), out=str(tmp_path / "begun")))
    twin = copy(run, tmp_path / "twin" / "mini")
    out = tmp_path / "report.html"
    write_report([begun, run, twin], out)
    text = out.read_text()
    check(text)
    assert "begun yet" in text and str(twin) in text, "two folders of one name are told apart"
    assert "var(--s2)" in text
    write_report([run, twin], out)
    assert out.read_text().count("4 clips</td>") == 2, "what each run's model was trained on"


def test_no_run_at_all(tmp_path):
    with pytest.raises(ValueError, match="no run at"):
        write_report([tmp_path], tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_a_reward_of_a_video_model_names_its_time(run, tmp_path):
    (tmp_path / "timing.json").write_text('{"seconds": 381.0}')
    found = read_run(run)
    config = replace(
        found.config, reward="diffusion", diffusion=DiffusionConfig(model=str(tmp_path))
    )
    rows = timing_section(replace(found, config=config))["rows"]
    assert [row.total for row in rows if "video model" in row.stage] == [381.0]
    assert not any("video model" in row.stage for row in timing_section(found)["rows"])


def test_durations():
    assert [duration(x) for x in (0.44, 12.5, 200.0, 7500.0)] == [
        "0.4 s",
        "12 s",
        "3 min 20 s",
        "2 h 5 min",
    ]
