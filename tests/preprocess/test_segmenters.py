"""Segmenters on clips whose masks are known, and what they say when they cannot work."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocess_torch.config import PreprocessConfig
from preprocess_torch.errors import ClipError, UsageError
from preprocess_torch.segmenters import build_segmenter
from preprocess_torch.segmenters.color import parse_colour
from preprocess_torch.trackers import build_tracker

from .synthetic import line, render, write_masks


def config(**fields: object) -> PreprocessConfig:
    return PreprocessConfig(data=Path("videos"), **fields)  # type: ignore[arg-type]


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_masks_reads_what_an_annotation_tool_writes(tmp_path: Path) -> None:
    frames, masks = render({"gripper": line(3, 3), "object": line(5, 0)})
    video = tmp_path / "000.cam0.mp4"
    write_masks(video, masks)
    segmenter = build_segmenter(config(), tmp_path)
    assert segmenter.entities == ("gripper", "object")
    found = segmenter.segment(frames, video)
    assert all((found[name] == mask).all() for name, mask in masks.items())
    # an entity that is out of sight in this view is left out
    label = Image.fromarray(masks["gripper"].astype(np.uint8))
    label.save(tmp_path / "000.cam0.masks.png")
    assert list(segmenter.segment(frames, video)) == ["gripper"]


def test_masks_names_the_bad_label_image(tmp_path: Path) -> None:
    frames, masks = render({"object": line(3, 3)})
    video, label = tmp_path / "a.mp4", tmp_path / "a.masks.png"
    write_masks(video, masks)
    segmenter = build_segmenter(config(), tmp_path)
    label.unlink()
    with pytest.raises(ClipError, match=r"a\.masks\.png is missing"):
        segmenter.segment(frames, video)
    label.write_bytes(b"nonsense")
    with pytest.raises(ClipError, match="not a readable PNG"):
        segmenter.segment(frames, video)
    Image.fromarray(np.zeros((5, 7), np.uint8)).save(label)
    with pytest.raises(ClipError, match="7×5"):
        segmenter.segment(frames, video)
    Image.fromarray(np.zeros((96, 96, 3), np.uint8)).save(label)
    with pytest.raises(ClipError, match="RGB"):
        segmenter.segment(frames, video)


def test_masks_json_has_to_name_the_labels(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"masks\.json is missing"):
        build_segmenter(config(), tmp_path)
    for text in ("[1]", "{", "{}", '{"0": "a"}', '{"1": "a", "2": "a"}', '{"x": "a"}'):
        (tmp_path / "masks.json").write_text(text)
        with pytest.raises(UsageError, match="is not of the form"):
            build_segmenter(config(), tmp_path)


def test_color_finds_a_named_colour_and_a_range(tmp_path: Path) -> None:
    frames, masks = render({"gripper": line(3, 3), "object": line(5, 0)})
    for spec in ("green", "80-160,30-100,10-100"):
        segmenter = build_segmenter(
            config(segmenter="color", color=(f"object={spec}", "gripper=red")), tmp_path
        )
        assert segmenter.entities == ("object", "gripper")
        found = segmenter.segment(frames, Path("a.mp4"))
        assert iou(found["object"], masks["object"]) > 0.9
        assert iou(found["gripper"], masks["gripper"]) > 0.9
    segmenter = build_segmenter(config(segmenter="color", color=("cube=blue",)), tmp_path)
    assert segmenter.segment(frames, Path("a.mp4")) == {}


@pytest.mark.parametrize("text", ["object", "=green", "a=mauve", "a=1-2,3-4", "a=0-400,0-1,0-1"])
def test_color_says_how_a_colour_is_written(text: str) -> None:
    with pytest.raises(UsageError, match="is not of the form object=green"):
        parse_colour(text)


def test_motion_orders_regions_by_when_they_start(tmp_path: Path) -> None:
    length = 30
    shifts = {"late": line(0, 40, length, start=14), "early": line(10, 50, length)}
    frames, masks = render(shifts, size=160, side=40)
    segmenter = build_segmenter(config(segmenter="motion", entities="gripper,object"), tmp_path)
    found = segmenter.segment(frames, Path("a.mp4"))
    for name, mine, other in (("gripper", "early", "late"), ("object", "late", "early")):
        assert (found[name] & masks[mine]).sum() > 0.9 * masks[mine].sum()
        assert not (found[name] & masks[other]).any()
    # unnamed, and only one thing moves: the second region is simply not there
    segmenter = build_segmenter(config(segmenter="motion"), tmp_path)
    frames, masks = render({"only": line(10, 50, length)}, size=160, side=40)
    found = segmenter.segment(frames, Path("a.mp4"))
    assert list(found) == ["moving_0"] and segmenter.required == ("moving_0",)
    assert (found["moving_0"] & masks["only"]).sum() > 0.9 * masks["only"].sum()
    with pytest.raises(ClipError, match="nothing moves"):
        segmenter.segment(np.repeat(frames[:1], 5, 0), Path("a.mp4"))


def test_unknown_back_ends_say_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="no segmenter 'sam9'; there are masks, color, motion, evf"
    ):
        build_segmenter(config(segmenter="sam9"), tmp_path)
    with pytest.raises(
        UsageError, match="no tracker 'x'; there are lucas_kanade, two_flows, cotracker3"
    ):
        build_tracker(config(tracker="x"))
    with pytest.raises(UsageError, match="at least one --color"):
        build_segmenter(config(segmenter="color"), tmp_path)
    with pytest.raises(UsageError, match="twice"):
        build_segmenter(config(segmenter="motion", entities="a,a"), tmp_path)


def test_networks_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever of torch and upstream's code is there: the sentence names what is missing."""
    for variable in ("RELAM_COTRACKER", "RELAM_EVFSAM"):
        monkeypatch.delenv(variable, raising=False)
    for name in ("cotracker", "cotracker.predictor", "model", "model.configuration_evf"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    prompt = ("gripper=hand",)
    for torch in (importlib.util.find_spec("torch"), None):
        if torch is None:
            monkeypatch.setitem(sys.modules, "torch", None)
        with pytest.raises(UsageError, match="co-tracker" if torch else "EXTRAS=torch"):
            build_tracker(config(tracker="cotracker3"))
        with pytest.raises(UsageError, match="hustvl/EVF-SAM" if torch else "EXTRAS=torch"):
            build_segmenter(config(segmenter="evf_sam", prompt=prompt), tmp_path)
    with pytest.raises(UsageError, match="EXTRAS=torch"):
        build_segmenter(config(segmenter="sam3", prompt=prompt), tmp_path)
