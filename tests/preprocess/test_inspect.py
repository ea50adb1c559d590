"""The page about a data set: whole, honest about what is missing, and without tracking again."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from preprocess_torch.cli import main
from relam_jax.keypoints.records import read_records
from tests.report.test_report import check

from .synthetic import render, write_masks, write_video

MakeFolder = Callable[..., Path]


@pytest.fixture
def data(make_folder: MakeFolder, tmp_path: Path) -> Path:
    """Three good clips of two views and a bad one."""
    folder = make_folder("push", 3, views=2, length=16)
    for view in range(2):
        (folder / f"bad.cam{view}.mp4").write_text("no video <b>")
    out = tmp_path / "data" / "push"
    assert main(["--data", str(folder), "--out", str(out), "--points", "12"]) == 0
    return out


def inspect(data: Path, *args: str) -> str:
    videos = data.parents[1] / "videos" / "push"
    assert main(["inspect", str(data), "--videos", str(videos), *args]) == 0
    text = (data / "inspect.html").read_text()
    check(text)
    return text


def test_the_page_shows_all_that_there_is(data: Path) -> None:
    before = {p: p.read_bytes() for p in data.rglob("*") if p.is_file()}
    text = inspect(data)
    assert text.count("<video") == 2 and 'class="missing"' not in text
    assert "3 videos tracked" in text and "1 rejected" in text
    assert "push/bad" in text and "not a video" in text and "bad.cam0.mp4" in text
    assert "gripper 12/12, object 12/12" in text
    assert text.count("frame0") == 2, "the first frame and the picture that uses it"
    assert {p: p.read_bytes() for p in before} == before


def test_parameters_change_the_choice_and_not_the_records(data: Path) -> None:
    def chosen(*args: str) -> int:
        return len(re.findall(r'r="3\.|r="[1-9]\d*\.?\d*" fill="#(?!fff)', inspect(data, *args)))

    assert chosen("--num_keypoints", "2") < chosen("--num_keypoints", "6")
    far = inspect(data, "--min_motion", "0.31", "--episode", "001")
    assert "Θ = 0.31 image sides" in far and "Clip push/001" in far
    assert "rule: angle" in inspect(data, "--selector", "angle")
    few, many = (inspect(data, "--tolerance", t) for t in ("0.5", "0.0005"))
    assert "share 1 keyframes" in few and "share 1 keyframes" not in many


def test_what_is_missing_is_said(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(data / "previews")
    text = inspect(data, "--videos", str(data.parent / "nowhere"))
    assert "there is no folder" in text and "No picture of the masks" in text
    # the videos of another day under the same name
    folder = data.parents[1] / "videos" / "push"
    still = {"gripper": np.zeros((9, 2)), "object": np.zeros((9, 2))}
    frames, masks = render(still)
    write_masks(write_video(folder / "000.cam1.mp4", frames), masks)
    assert "no longer holds the file from which cam1 of push/000" in inspect(data)
    monkeypatch.chdir(data.parents[1])
    assert main(["inspect", "data/push", "--episode", "001"]) == 0
    assert (data / "inspect.html").read_text().count("<video") == 2, "videos/<task> is found"


def test_only_rejected_videos_are_a_page_too(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder, out = make_folder("push", 1), tmp_path / "out"
    _, masks = render({"gripper": np.zeros((2, 2)), "object": np.zeros((2, 2))})
    write_masks(folder / "000.mp4", masks | {"object": np.zeros_like(masks["object"])})
    assert main(["--data", str(folder), "--out", str(out)]) == 1
    assert main(["inspect", str(out)]) == 0
    text = (out / "inspect.html").read_text()
    check(text)
    assert "no pixel of object was found" in text and "what was found in push/000" in text
    assert "No video was tracked" in text and "image/jpeg" in text


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["nowhere"], "there is no data set at nowhere"),
        (["videos"], "holds no finished data set"),
        (["data/push", "--episode", "7"], "--episode 7: data/push has 000, 001, 002"),
    ],
)
def test_wrong_commands_get_one_sentence(
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(data.parents[1])
    capsys.readouterr()
    assert main(["inspect", *args]) == 2
    printed = capsys.readouterr().err.strip()
    assert printed.startswith("error: ") and says in printed and "\n" not in printed
    assert not (data / "inspect.html").exists()


def test_neither_jax_nor_torch_is_needed(data: Path) -> None:
    code = (
        "import sys; from preprocess_torch.cli import main; "
        f"code = main(['inspect', {str(data)!r}]); "
        "heavy = {'torch', 'tensorflow', 'jax'} & set(sys.modules); "
        "sys.exit(code or str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(read_records(data)) == 3
