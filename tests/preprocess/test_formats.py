"""Videos as people have them: containers, codecs, pixel formats, variable rates, rotation, folders
of frames, LeRobot and RLDS data sets; resampling and trimming."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from preprocess_torch.cli import main
from preprocess_torch.discover import find_clips, find_data_sets
from preprocess_torch.errors import ClipError, UsageError
from preprocess_torch.sources import frame_files
from preprocess_torch.video import Timing, parse_timing, read_video, select
from relam_jax.keypoints import tfrecord
from relam_jax.keypoints.records import read_records

from .synthetic import line, render, write_masks


def levels(video: Any) -> list[int]:
    """Which of the grey levels 0, 20, 40, … each frame shows."""
    return [round(float(frame.mean()) / 20) for frame in video.frames]


def ramp(count: int, height: int = 32, width: int = 48) -> np.ndarray:
    """Frame t is grey of level 20 t."""
    grey = (20 * np.arange(count)).astype(np.uint8)
    return np.broadcast_to(grey[:, None, None, None], (count, height, width, 3)).copy()


def encode(
    path: Path,
    frames: np.ndarray,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    times: np.ndarray | None = None,
    rotation: int = 0,
    options: dict[str, str] | None = None,
) -> Path:
    """A file at 20 frames a second, or with frames at `times` (seconds)."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=20)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        stream.options = {"threads": "1"} | (options or {})
        if pixels == "gray":
            stream.codec_context.color_range = 2  # FFmpeg makes grey of the full range
        if rotation:
            stream.set_display_rotation(rotation)
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.time_base = Fraction(1, 1000)
            frame.pts = round(1000 * (index / 20 if times is None else times[index]))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


QUIET = {"x265-params": "log-level=none:pools=none:frame-threads=1"}


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "options"),
    [
        ("a.mp4", "libx264", "yuv420p", {}),
        ("a.m4v", "mpeg4", "yuv420p", {"qscale": "2"}),
        ("a.mp4", "libx265", "yuv420p10le", QUIET),  # 10 bits
        ("a.mp4", "libx264", "yuv422p10le", {}),
        ("a.mp4", "libx264", "gray", {}),
        ("a.mov", "prores_ks", "yuv422p10le", {}),
        ("a.mov", "mjpeg", "yuvj420p", {}),
        ("a.webm", "libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}),
        ("a.webm", "libvpx", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}),
        ("a.webm", "libsvtav1", "yuv420p", {"preset": "12"}),
        ("a.avi", "mjpeg", "yuvj420p", {}),
        ("a.avi", "mpeg4", "yuv420p", {"qscale": "2"}),
        ("a.mkv", "ffv1", "bgr0", {}),
        ("a.mkv", "libx264", "yuv444p", {}),
    ],
)
def test_containers_codecs_and_pixel_formats(
    tmp_path: Path, name: str, codec: str, pixels: str, options: dict[str, str]
) -> None:
    frames = ramp(9, 64, 64)
    frames[:, :32, :, 2] = 255 - frames[:, :32, :, 2]  # the upper half is coloured
    scheduler = os.sched_getscheduler(0)
    try:
        # libsvtav1 gives the thread that calls it, if root's, real-time priority for ever: in the
        # main thread that starves all other tests
        with ThreadPoolExecutor(1) as thread:
            path = tmp_path / name
            thread.submit(encode, path, frames, codec, pixels, options=options).result()
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this FFmpeg has no encoder {codec}")
    video = read_video(path)
    assert os.sched_getscheduler(0) == scheduler
    assert video.frames.shape == (9, 64, 64, 3) and video.fps == pytest.approx(20, rel=0.02)
    lower = video.frames[:, 40:].mean((1, 2))
    np.testing.assert_allclose(lower, np.repeat(20 * np.arange(9)[:, None], 3, 1), atol=8)
    if pixels != "gray":
        blue = video.frames[:, 8:24, :, 2].mean((1, 2))
        np.testing.assert_allclose(blue, 255 - 20 * np.arange(9), atol=16)


@pytest.mark.parametrize("size", [(33, 47), (47, 33), (35, 64)])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    video = read_video(encode(tmp_path / "a.mkv", ramp(5, *size), pixels="yuv444p"))
    assert video.frames.shape == (5, *size, 3)
    assert levels(video) == list(range(5))


@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_a_telephones_rotation_is_undone(tmp_path: Path, rotation: int) -> None:
    frames = ramp(3, 32, 64) + np.uint8(20)
    frames[:, :16, :32] = 250  # a white corner, top left of what is stored
    path = encode(tmp_path / "a.mp4", frames, rotation=rotation)
    video = read_video(path)
    turned = np.rot90(frames, rotation // 90, axes=(1, 2))  # counter-clockwise
    assert video.frames.shape == turned.shape
    assert np.abs(video.frames.astype(int) - turned).mean() < 6


def test_a_variable_rate_is_resampled_by_time(tmp_path: Path) -> None:
    times = np.array([0.0, 0.05, 0.1, 0.5, 0.55, 0.9, 1.0])
    path = encode(tmp_path / "a.mkv", ramp(7), times=times)
    whole = read_video(path)
    assert levels(whole) == list(range(7)) and whole.fps == pytest.approx(6)
    video = read_video(path, Timing(fps=10))
    assert video.fps == 10
    #   shown at          0.0 .1 .2 .3 .4 .5 .6 .7 .8 .9 1.0
    assert levels(video)[:11] == [0, 2, 2, 2, 2, 3, 4, 4, 4, 5, 6]
    assert levels(read_video(path, Timing(fps=2)))[:3] == [0, 3, 6]


def test_trimming_and_resampling(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", ramp(12))  # frame t at t / 20 s, 0.6 s in all

    def shown(fps: float, trim: str) -> list[int]:
        return levels(read_video(path, parse_timing(fps, trim)))

    assert shown(0, "") == list(range(12))
    assert shown(0, "0.1:0.3") == [2, 3, 4, 5]
    assert shown(0, "0.45:") == [9, 10, 11]
    assert shown(0, ":-0.1") == list(range(10))
    assert shown(0, "0.2:-0.2") == [4, 5, 6, 7]
    assert shown(10, "") == [0, 2, 4, 6, 8, 10]
    assert shown(10, "0.1:0.5") == [2, 4, 6, 8]
    assert shown(10, "0.1:-0.2") == [2, 4, 6]
    assert shown(40, "0.5:") == [10, 10, 11, 11]
    with pytest.raises(ClipError, match="within --trim"):
        shown(0, "5:")


@pytest.mark.parametrize(
    ("fps", "trim", "says"),
    [(-1, "", "--fps -1"), (0, "3", "START:END"), (0, "2:1", "START:END"), (0, "a:", "START:END")],
)
def test_wrong_timings_are_said(fps: float, trim: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_timing(fps, trim)


def test_what_is_not_taken_is_not_unpacked() -> None:
    unpacked = []

    def array(index: int) -> np.ndarray:
        unpacked.append(index)
        return np.zeros((2, 2, 3), np.uint8)

    frames = ((i / 100, i) for i in range(10**9))  # endless: what comes after the end is not asked
    assert len(select(frames, Timing(10, 1.0, 2.0), array)) == 10
    assert unpacked == list(range(100, 200, 10))


def frame_folder(path: Path, frames: np.ndarray, suffix: str = ".png") -> None:
    path.mkdir(parents=True)
    for index, frame in enumerate(frames):
        cv2.imwrite(str(path / f"f{index}{suffix}"), frame[..., ::-1])


def test_folders_of_frames_are_clips(tmp_path: Path) -> None:
    folder, out = tmp_path / "videos" / "push", tmp_path / "out"
    frames, masks = render({"gripper": line(4, 6), "object": line(6, -3)})
    for view, suffix in enumerate((".png", ".JPG")):
        frame_folder(folder / f"000.cam{view}", frames, suffix)
        write_masks(folder / f"000.cam{view}.mp4", masks)
    assert [f.name for f in frame_files(folder / "000.cam0")][9:] == [
        "f9.png",
        "f10.png",
        "f11.png",
    ]
    assert find_data_sets(tmp_path / "videos") == [(folder, Path("push"))]
    args = ["--data", str(folder), "--out", str(out), "--points", "20", "--fps", "12"]
    assert main(args) == 0
    record = read_records(out)[0]
    assert record.view_names == ("cam0", "cam1") and record.episode_id == "000"
    assert record.tracks.shape == (2, 12, 40, 2) and record.fps == 12
    # beside videos, folders of pictures are previews and the like
    (folder / "one.mp4").write_bytes(b"")
    assert [clip.episode_id for clip in find_clips(folder)] == ["one"]
    (folder / "one.mp4").unlink()
    # a changed picture is a changed clip
    first = find_clips(folder)[0].views[0].source
    before = first.digest()
    cv2.imwrite(str(folder / "000.cam0" / "f3.png"), frames[0])
    assert first.digest() != before
    with pytest.raises(ClipError, match="--trim needs their rate"):
        first.read(Timing(start=1.0))
    (folder / "000.cam0" / "f5.png").write_bytes(b"no picture")
    with pytest.raises(ClipError, match=r"cannot be read: f5\.png"):
        first.read(Timing())


def lerobot(root: Path, version: str, frames: list[np.ndarray], image: bool) -> Path:
    """A data set of LeRobot's layout with cameras front and wrist, an episode an entry of
    `frames`."""
    import pyarrow
    import pyarrow.parquet as parquet

    keys = ["observation.images.front", "observation.images.wrist"]
    v3 = version.startswith("v3")
    info: dict[str, Any] = {
        "codebase_version": version,
        "fps": 20,
        "chunks_size": 1000,
        "total_episodes": len(frames),
        "features": {key: {"dtype": "image" if image else "video"} for key in keys}
        | {"action": {"dtype": "float32"}},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
        if v3
        else "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
        if v3
        else "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }
    (root / "meta").mkdir(parents=True)
    (root / "meta" / "info.json").write_text(json.dumps(info))
    tables: list[dict[str, Any]] = []
    for episode, clip in enumerate(frames):
        for frame in clip:
            png = {"bytes": cv2.imencode(".png", frame[..., ::-1])[1].tobytes(), "path": "x.png"}
            row = {key: png for key in keys} if image else {}
            tables.append({"episode_index": episode, "action": 0.0} | row)
    place = {"chunk_index": 0, "file_index": 0, "episode_chunk": 0}
    for episode in range(1 if v3 else len(frames)):
        rows = tables if v3 else [row for row in tables if row["episode_index"] == episode]
        file = root / info["data_path"].format(episode_index=episode, **place)
        file.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.Table.from_pylist(rows), file)
        for key in [] if image else keys:
            clip = np.concatenate(frames) if v3 else frames[episode]
            file = root / info["video_path"].format(episode_index=episode, video_key=key, **place)
            file.parent.mkdir(parents=True, exist_ok=True)
            clip = clip.copy()
            clip[:, :4, :4] = 255 * keys.index(key)  # the cameras do not see the same
            encode(file, clip, options={"crf": "8"})
    starts = np.concatenate([[0], np.cumsum([len(clip) for clip in frames])]) / 20
    episodes = [
        {"episode_index": i, "length": len(c), "tasks": ["x"]} for i, c in enumerate(frames)
    ]
    if not v3:
        lines = "".join(json.dumps(episode) + "\n" for episode in episodes)
        (root / "meta" / "episodes.jsonl").write_text(lines)
        return root
    for index, row in enumerate(episodes):
        row |= {"data/chunk_index": 0, "data/file_index": 0}
        for key in [] if image else keys:
            row |= {f"videos/{key}/chunk_index": 0, f"videos/{key}/file_index": 0}
            row |= {f"videos/{key}/from_timestamp": float(starts[index])}
            row |= {f"videos/{key}/to_timestamp": float(starts[index + 1])}
    file = root / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    file.parent.mkdir(parents=True)
    parquet.write_table(pyarrow.Table.from_pylist(episodes), file)
    return root


@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0"])
@pytest.mark.parametrize("image", [False, True], ids=["video", "image"])
def test_lerobot_episodes_and_cameras(tmp_path: Path, version: str, image: bool) -> None:
    clips = [ramp(12)[first:last] for first, last in ((0, 5), (5, 8), (2, 12))]
    root = lerobot(tmp_path / "sets" / "pick", version, clips, image)
    assert find_data_sets(tmp_path / "sets") == [(root, Path("pick"))]
    found = find_clips(root)
    assert [c.video_id for c in found] == [f"pick/episode_00000{i}" for i in range(3)]
    assert all([v.name for v in c.views] == ["front", "wrist"] for c in found)
    wanted = [list(range(5)), [5, 6, 7], list(range(2, 12))]
    for clip, shown in zip(found, wanted, strict=True):
        for view in clip.views:
            video = view.source.read(Timing())
            assert levels(video) == shown and video.fps == pytest.approx(20)
    assert levels(found[2].views[0].source.read(Timing(10, 0.1))) == [4, 6, 8, 10]
    assert len({view.source.digest() for clip in found for view in clip.views}) == 6
    assert [v.name for v in find_clips(root, ("wrist",))[0].views] == ["wrist"]
    assert [v.name for v in find_clips(root, ("wrist", "front"))[0].views] == ["wrist", "front"]
    with pytest.raises(UsageError, match="has front, wrist"):
        find_clips(root, ("top",))


def test_lerobot_to_records(tmp_path: Path) -> None:
    pair = [render({"gripper": line(4, 6 + e), "object": line(6, -3)})[0] for e in range(2)]
    masks = render({"gripper": line(4, 6), "object": line(6, -3)})[1]
    root = lerobot(tmp_path / "pick", "v3.0", pair, image=False)
    for episode in range(2):
        write_masks(root / f"episode_{episode:06d}.front.mp4", masks)
    out = tmp_path / "out"
    args = ["--data", str(root), "--out", str(out), "--cameras", "front", "--points", "20"]
    assert main(args) == 0
    for episode, record in enumerate(read_records(out)):
        moved = record.tracks[0, -1] - record.tracks[0, 0]
        shift = np.median(moved[record.entity_id == 0], axis=0) * 96
        np.testing.assert_allclose(shift, [4, 6 + episode], atol=0.5)
    assert main(args) == 0  # nothing is done again
    assert json.loads((out / "config.json").read_text())["cameras"] == ["front"]


def test_broken_lerobot_meta_data_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = lerobot(tmp_path / "pick", "v2.1", [ramp(5)], image=False)
    (root / "masks.json").write_text('{"1": "gripper"}')
    (root / "meta" / "episodes.jsonl").unlink()
    assert main(["--data", str(root), "--out", str(tmp_path / "out")]) == 2
    assert "no LeRobot data set of version 2 or 3" in capsys.readouterr().err
    (root / "meta" / "info.json").write_text('{"codebase_version": "v2.1", "features": {}}')
    assert main(["--data", str(root), "--out", str(tmp_path / "out")]) == 2


def rlds(root: Path, frames: list[np.ndarray]) -> Path:
    """Episodes by TFDS's own encoder: two cameras, depth, text and numbers."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    def file(suffix: str, image: np.ndarray) -> io.BytesIO:  # TFDS keeps it bit for bit
        return io.BytesIO(cv2.imencode(suffix, image)[1].tobytes())

    f = tfds.features
    shape = frames[0].shape[1:]
    observation = {
        "image": f.Image(shape=shape, encoding_format="png"),
        "wrist_image": f.Image(shape=shape, encoding_format="jpeg"),
        "depth": f.Image(shape=(*shape[:2], 1), dtype=np.uint16, encoding_format="png"),
        "state": f.Tensor(shape=(3,), dtype=np.float32),
        "text": f.Text(),
    }
    features = f.FeaturesDict(
        {"steps": f.Dataset({"observation": observation, "reward": np.float32})}
    )
    serializer = ExampleSerializer(features.get_serialized_info())
    root.mkdir(parents=True)
    features.save_config(str(root))
    for shard, clips in enumerate((frames[:2], frames[2:])):
        examples = []
        for clip in clips:
            deep = np.full(shape[:2], 5000, np.uint16)
            steps = [
                {
                    "observation": {
                        "image": file(".png", frame),
                        "wrist_image": file(".jpg", frame),
                        "depth": file(".png", deep),
                        "state": np.zeros(3, np.float32),
                        "text": "move",
                    },
                    "reward": np.float32(0),
                }
                for frame in clip
            ]
            encoded = features.encode_example({"steps": steps})
            examples.append(tfrecord.frame(serializer.serialize_example(encoded)))
        name = f"pick-train.tfrecord-0000{shard}-of-00002"
        (root / name).write_bytes(b"".join(examples))
    return root


def test_rlds_episodes_and_cameras(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips = [ramp(12)[first:last] for first, last in ((0, 5), (5, 8), (2, 12))]
    root = rlds(tmp_path / "sets" / "pick", clips)
    assert find_data_sets(tmp_path / "sets") == [(root, Path("pick"))]
    found = find_clips(root)
    assert [[v.name for v in c.views] for c in found] == [["image", "wrist_image"]] * 3
    wanted = [list(range(5)), [5, 6, 7], list(range(2, 12))]
    for clip, shown in zip(found, wanted, strict=True):
        for view in clip.views:
            video = view.source.read(Timing(fps=5))
            assert levels(video) == shown and video.fps == 5
    assert levels(found[0].views[0].source.read(Timing(5, 0.4))) == [2, 3, 4]
    shard = next(root.glob("*00001-of*"))
    shard.write_bytes(shard.read_bytes()[:-40])
    (root / "masks.json").write_text('{"1": "gripper"}')
    assert main(["--data", str(root), "--out", str(tmp_path / "out")]) == 2
    assert "is cut off in record" in capsys.readouterr().err


def test_a_tfds_folder_without_pictures_is_said(
    make_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["--data", str(make_folder("push", 1)), "--out", str(out)]) == 0
    (out / "masks.json").write_text('{"1": "gripper"}')
    assert main(["--data", str(out), "--out", str(tmp_path / "again")]) == 2
    assert "without episodes of pictures" in capsys.readouterr().err
