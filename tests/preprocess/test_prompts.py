"""Text prompts, apart from the networks that understand them: where they come from, what becomes of
a mask, what is said when nothing is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from preprocess_torch.cli import main
from preprocess_torch.config import PreprocessConfig
from preprocess_torch.crop import find_box
from preprocess_torch.errors import UsageError
from preprocess_torch.models import checkpoint_file, hub_folder, sha256
from preprocess_torch.segmenters.prompts import PRESETS, TextSegmenter, clean, find_prompts

from .synthetic import line, render


def config(*prompts: str) -> PreprocessConfig:
    return PreprocessConfig(data=Path("videos"), segmenter="evf_sam", prompt=prompts)


def test_prompts_are_named_or_name_themselves(tmp_path: Path) -> None:
    found = find_prompts(config("gripper=robot gripper", "object=green drawer"), tmp_path)
    assert found == {"gripper": "robot gripper", "object": "green drawer"}
    found = find_prompts(config("green drawer", "robot gripper"), tmp_path)
    assert found == {"green drawer": "green drawer", "gripper": "robot gripper"}
    found = find_prompts(config("[semantic] sea", "gripper=[semantic] hand"), tmp_path)
    assert found == {"sea": "[semantic] sea", "gripper": "[semantic] hand"}


def test_prompts_come_from_the_folder_or_a_preset(tmp_path: Path) -> None:
    folder = tmp_path / "drawer_open"
    folder.mkdir()
    assert find_prompts(config(), folder) == PRESETS["drawer_open"]
    (folder / "prompts.json").write_text(json.dumps({"gripper": "claw"}))
    assert find_prompts(config(), folder) == {"gripper": "claw"}
    assert find_prompts(config("gripper=hand"), folder) == {"gripper": "hand"}


def test_what_is_wrong_with_prompts_is_said(tmp_path: Path) -> None:
    for prompts, says in (
        ((), "there are no prompts for"),
        (("object=drawer",), "no prompt is for the gripper"),
        (("gripper=a", "gripper=b"), "twice"),
        (("gripper=",), "is not of the form"),
    ):
        with pytest.raises(UsageError, match=says):
            find_prompts(config(*prompts), tmp_path)
    for text in ("[1]", "{", '{"gripper": 1}', '{"gripper": " "}'):
        (tmp_path / "prompts.json").write_text(text)
        with pytest.raises(UsageError, match=r"prompts\.json is not of the form"):
            find_prompts(config(), tmp_path)


def test_masks_lose_small_pieces_and_holes() -> None:
    wanted = np.zeros((80, 80), bool)
    wanted[20:60, 20:60] = True
    wanted[0:10, 20:60] = True  # a second large piece, at the edge
    wanted[30:50, 30:50] = False  # a large hole is part of the thing's shape
    ragged = wanted.copy()
    ragged[22:25, 22:25] = False
    ragged[70:74, 70:74] = True
    np.testing.assert_array_equal(clean(ragged), wanted)
    assert not clean(np.zeros((8, 8), bool)).any()


def segmenter(masks: dict[str, tuple[np.ndarray, float]], crop: str = "auto") -> TextSegmenter:
    def finder(image: np.ndarray, prompt: str) -> tuple[np.ndarray, float]:
        return masks[prompt]

    return TextSegmenter("fixed", {name: name for name in masks}, finder, {}, 0.5, crop)


def test_low_scores_and_overlaps() -> None:
    frames, masks = render({"a": line(1, 1), "b": line(1, 1)})
    nothing = np.zeros((96, 96), bool)
    both = masks["a"] | masks["b"]
    found = segmenter(
        {"a": (masks["a"], 0.9), "b": (both, 0.6), "low": (masks["b"], 0.4), "no": (nothing, 1.0)}
    ).segment(frames, Path("a.mp4"))
    assert list(found) == ["a", "b"]
    np.testing.assert_array_equal(found["a"], masks["a"])
    np.testing.assert_array_equal(found["b"], masks["b"])


def test_a_segmenters_crop_is_mapped_back() -> None:
    frames, masks = render({"a": line(1, 1)})
    cut = masks["a"][24:72]
    found = segmenter({"a": (cut, 1.0)}, "0,0.25,1,0.75").segment(frames, Path("a.mp4"))
    np.testing.assert_array_equal(found["a"][24:72], cut)
    assert not found["a"][:24].any() and not found["a"][72:].any()


def test_a_box_holds_the_points_and_what_moves() -> None:
    frames, masks = render({"a": line(0, 0, 8), "b": line(30, 20, 8)}, size=240)
    (rows, columns) = np.nonzero(masks["a"])
    queries = np.stack([columns, rows], 1)[::50] + np.float32(0.5)
    left, top, right, bottom = find_box("auto", frames, queries)
    assert left <= 8 + 1 and right >= 48 + 28 + 30 and top <= 80 and bottom >= 80 + 28 + 20
    assert right - left < 170 and bottom - top < 120
    everywhere = np.float32([[1, 1], [239, 239]])
    assert find_box("auto", frames, everywhere) == find_box("none", frames, queries)
    assert tuple(find_box("0.25,0.5,0.75,1", frames, queries)) == (60, 120, 180, 240)


def test_nothing_found_is_said_with_a_picture(
    make_folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, out = make_folder("push", 1), tmp_path / "out"
    _, masks = render({"gripper": line(4, 6), "object": line(6, -3)})
    fixed = segmenter({"gripper": (masks["gripper"], 0.9), "object": (masks["object"], 0.1)})
    monkeypatch.setattr("preprocess_torch.pipeline.build_segmenter", lambda *_: fixed)
    assert main(["--data", str(folder), "--out", str(out)]) == 1
    printed = capsys.readouterr().err
    assert "no pixel of object ('object') was found" in printed and "000.png" in printed
    picture = cv2.imread(str(out / "previews" / "000.png"))
    assert picture is not None and picture.shape == (384, 384, 3)


@pytest.mark.parametrize("crop", ["wide", "0,0,2,1", "0.5,0,0.5,1", "0,0,1"])
def test_a_wrong_crop_is_said(crop: str) -> None:
    with pytest.raises(UsageError, match="in image sides"):
        find_box(crop, np.zeros((2, 8, 8, 3), np.uint8), np.ones((1, 2), np.float32))


def test_checkpoints_are_checked_and_downloaded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELAM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "w.pth").write_bytes(b"weights")
    total = sha256(tmp_path / "w.pth")
    assert checkpoint_file(f"{tmp_path}/w.pth#sha256={total}", "") == tmp_path / "w.pth"
    with pytest.raises(UsageError, match="64 hexadecimal"):
        checkpoint_file("w.pth#sha256=12", "")
    with pytest.raises(UsageError, match=r"no checkpoint none\.pth: fetch it"):
        checkpoint_file("none.pth", "fetch it")
    # no network: the sentence names the file and the place; a file put there is taken
    url = "http://127.0.0.1:9/scaled.pth"
    with pytest.raises(UsageError, match="cannot be downloaded") as caught:
        checkpoint_file(url, "")
    place = tmp_path / "cache" / "scaled.pth"
    assert str(place) in str(caught.value) and not list(place.parent.iterdir())
    place.write_bytes(b"other")
    assert checkpoint_file(url, "") == place
    with pytest.raises(UsageError, match="remove it and download it again"):
        checkpoint_file(f"{url}#sha256={total}", "")


def test_hub_names(tmp_path: Path) -> None:
    assert hub_folder(str(tmp_path), "") == tmp_path
    with pytest.raises(UsageError, match="there is no folder"):
        hub_folder(str(tmp_path / "none"), "")
