"""Decoding: exact frames in order, and one clear sentence for whatever is not a video."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from preprocess_torch.errors import ClipError
from preprocess_torch.video import read_video

from .synthetic import write_audio, write_video


def brightness_ramp(count: int) -> np.ndarray:
    """Frame t is grey of level 10 t."""
    levels = (10 * np.arange(count)).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, 32, 48, 3)).copy()


def test_all_frames_come_in_order_of_presentation(tmp_path: Path) -> None:
    video = read_video(write_video(tmp_path / "a.mp4", brightness_ramp(20), fps=25))
    assert video.frames.shape == (20, 32, 48, 3)
    assert video.fps == pytest.approx(25)
    levels = video.frames.mean((1, 2, 3))
    np.testing.assert_allclose(levels, 10 * np.arange(20), atol=3)


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "mpeg4"), ("a.mkv", "libx264")])
def test_containers(tmp_path: Path, name: str, codec: str) -> None:
    video = read_video(write_video(tmp_path / name, brightness_ramp(9), codec=codec))
    assert len(video.frames) == 9


def zero_frames(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode())
    return path


def cut(path: Path, part: float, faststart: bool) -> Path:
    whole = path.with_name("whole.mp4")
    options = {"movflags": "faststart"} if faststart else {}
    noise = np.random.default_rng(0).integers(0, 255, (30, 64, 64, 3)).astype(np.uint8)
    with av.open(str(whole), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=20)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for frame in noise:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    data = whole.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    whole.unlink()
    return path


def test_whatever_is_no_video_says_what_it_is(tmp_path: Path) -> None:
    def problem(path: Path) -> str:
        with pytest.raises(ClipError) as caught:
            read_video(path)
        message = str(caught.value)
        assert "\n" not in message
        return message

    assert "no pictures" in problem(write_audio(tmp_path / "audio.mp4"))
    text = tmp_path / "text.mp4"
    text.write_text("this is not a video\n" * 50)
    assert "not a video" in problem(text)
    (tmp_path / "empty.mp4").touch()
    assert "not a video" in problem(tmp_path / "empty.mp4")
    no_frames = problem(zero_frames(tmp_path / "zero.mp4"))
    assert "no frames" in no_frames or "no pictures" in no_frames or "not a video" in no_frames
    assert "cut off" in problem(cut(tmp_path / "tail.mp4", 0.6, faststart=False))
    assert "cut off" in problem(cut(tmp_path / "fast.mp4", 0.6, faststart=True))


def test_a_cut_matroska_file_is_noticed(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3)).astype(np.uint8)
    data = write_video(tmp_path / "whole.mkv", noise).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    assert len(read_video(tmp_path / "whole.mkv").frames) == 40
    with pytest.raises(ClipError, match="cut off"):
        read_video(tmp_path / "cut.mkv")


def test_a_clip_too_large_for_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preprocess_torch.video.MAX_BYTES", 10_000)
    with pytest.raises(ClipError, match="GiB"):
        read_video(write_video(tmp_path / "a.mp4", brightness_ramp(20)))
