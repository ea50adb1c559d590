"""Files as they should not be, kills at any moment, a full disk: the good videos come out the same.

Everything runs through the command; the disk that is full is a real limit of the process.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocess_torch import video
from preprocess_torch.cli import main
from relam_jax.keypoints.records import read_examples, read_records

from .synthetic import line, render, write_audio, write_video
from .test_cli import contents, manifest

COLOUR = ["--segmenter", "color", "--color", "gripper=red", "--color", "object=green"]
COLOUR += ["--points", "4"]
FRAMES = 5


def good_clip(path: Path, way: float = 6.0, size: int = 64, length: int = FRAMES) -> Path:
    shifts = {"gripper": line(3, way, length), "object": line(way, -2, length)}
    return write_video(path, render(shifts, size, 16)[0])


def good_folder(folder: Path, count: int = 2, length: int = FRAMES) -> Path:
    folder.mkdir(parents=True)
    for index in range(count):
        good_clip(folder / f"good{index}.mp4", 5.0 + index, length=length)
    return folder


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that declares this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + check

    sides = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    head = chunk(b"IHDR", sides + b"\x08\x02\0\0\0")
    return b"\x89PNG\r\n\x1a\n" + head + pixels + chunk(b"IEND", b"")


def mutate(folder: Path, scratch: Path, rng: np.random.Generator) -> int:
    """Put bad files beside good ones; returns how many."""
    before = len(list(folder.iterdir()))
    sources = []
    for suffix in ("mp4", "mkv", "avi"):
        codec = "mpeg4" if suffix == "avi" else "libx264"
        shift = {"gripper": line(2, 2, 3), "object": line(2, 2, 3)}
        clip = write_video(scratch / f"a.{suffix}", render(shift, 48, 12)[0], codec=codec)
        sources.append((suffix, clip.read_bytes()))
    for suffix, data in sources:
        for index in range(40):  # flipped bits: all over, in the head, in the tail
            bad = bytearray(data)
            low, high = ((0, len(bad)), (0, 256), (len(bad) - 900, len(bad)))[index % 3]
            for at in rng.integers(low, high, 1 << index % 6):
                bad[at] ^= 1 << rng.integers(8)
            (folder / f"flip{index}-{suffix}.{suffix}").write_bytes(bad)
        for index, end in enumerate(rng.integers(1, len(data), 30)):
            (folder / f"cut{index}-{suffix}.{suffix}").write_bytes(data[:end])
        for index in range(10):  # bytes gone from the middle, or put there
            a, b = sorted(rng.integers(0, len(data), 2))
            bad = data[:a] + data[b:] if index % 2 else data[:a] + rng.bytes(99) + data[a:]
            (folder / f"gap{index}-{suffix}.{suffix}").write_bytes(bad)
        for index in range(10):  # sizes and counts of the container blown up
            bad = bytearray(data)
            at = int(rng.integers(0, len(data) - 4))
            bad[at : at + 4] = b"\xff\xff\xff\xff" if index % 2 else b"\x7f\xff\xff\xf0"
            (folder / f"huge{index}-{suffix}.{suffix}").write_bytes(bad)
        for other in ("webm", "mov", "mpg"):  # wrong extensions
            (folder / f"name-{suffix}.{other}").write_bytes(data[: len(data) // 2])
    noise = [b"", b"\0", b"\n", b"#!/bin/sh\nexit 1\n", rng.bytes(5000), bytes(5000)]
    noise += [b"#EXTM3U\n/etc/passwd\n", b"concat:/etc/passwd", png_header(30000, 30000)]
    noise += [b"ffconcat version 1.0\nfile /etc/hostname\n", b"<?xml version='1.0'?><a/>"]
    for index, data in enumerate(noise):
        (folder / f"noise{index}.mp4").write_bytes(data)
    good_clip(folder / "long.mp4", length=400)  # more than the memory that the test allows
    write_video(folder / "wide.mp4", np.zeros((2, 2100, 2100, 3), np.uint8))
    write_audio(folder / "sound.mp4")
    names = [
        "a b",
        "ü",
        "new\nline",
        "\x1b[31mred",
        "-rf",
        "%00",
        "..mp4",
        "a'\"`$(touch x)",
        "\udcff",
    ]
    for index, name in enumerate([*names, "x" * 200]):
        (folder / f"{name}.mp4").write_bytes(sources[0][1][: 300 + index])
    outside = scratch / "outside.mp4"
    outside.write_bytes(sources[0][1][:500])
    (folder / "link.mp4").symlink_to(outside)
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    (folder / "zero.mp4").symlink_to("/dev/zero")
    (folder / "up.mp4").symlink_to("/")
    (folder / "folder.mp4").mkdir()
    os.mkfifo(folder / "pipe.mp4")
    return len(list(folder.iterdir())) - before


def everything(root: Path) -> dict[str, bytes]:
    """What is on the disk below `root`."""
    regular = [p for p in sorted(root.rglob("*")) if p.is_file() and not p.is_symlink()]
    return {str(p): p.read_bytes() for p in regular}


def test_hundreds_of_bad_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(video, "MAX_BYTES", 4 << 20)
    folder, scratch = good_folder(tmp_path / "videos"), tmp_path / "scratch"
    scratch.mkdir()
    assert main(["--data", "videos", "--out", "clean/out", *COLOUR]) == 0
    clean = contents(tmp_path / "clean/out")
    assert mutate(folder, scratch, np.random.default_rng(0)) >= 300
    before, begun = everything(tmp_path), time.process_time()
    capsys.readouterr()
    assert main(["--data", "videos", "--out", "dirty/out", *COLOUR]) == 0
    spent, errors = time.process_time() - begun, capsys.readouterr().err
    assert spent < 60
    out = tmp_path / "dirty/out"
    after = everything(tmp_path)
    assert {k: after[k] for k in before} == before
    assert all(Path(k).is_relative_to(out) for k in after.keys() - before.keys())
    # the good ones are what they were, whatever else was found good
    assert examples(tmp_path / "clean/out").items() <= examples(out).items()
    previews = {name: value for name, value in clean.items() if name.startswith("previews/good")}
    assert len(previews) == 2 and previews.items() <= contents(out).items()
    lines = manifest(out)
    failed = [entry for entry in lines if entry["status"] == "failed"]
    assert len(failed) > 200 and all(entry["reason"].strip() for entry in failed)
    assert "Traceback" not in errors
    assert errors.count("\n") == len(failed), "one line a bad video, whatever is in its name"
    assert "\x1b" not in errors
    reasons = {entry["video_id"]: entry["reason"] for entry in failed}
    assert "when decoded" in reasons["videos/long"] and "when decoded" in reasons["videos/wide"]
    assert "not UTF-8" in reasons["videos/\udcff"]
    assert not {f"videos/{n}" for n in ("pipe", "zero", "up", "folder", "loop")} & set(reasons)


def examples(out: Path) -> dict[str, bytes]:
    """The bytes of each record, by name."""
    return {r.video_id: e for r, e in zip(read_records(out), read_examples(out), strict=True)}


def test_bad_pictures_and_label_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A picture that declares 30,000 × 30,000 pixels, files that never end beside the clips."""
    folder = tmp_path / "pictures"
    frames, _ = render({"gripper": line(3, 3, 4), "object": line(3, 3, 4)}, 64, 16)
    for name in ("good", "bomb", "pipe"):
        (folder / name).mkdir(parents=True)
        for index, frame in enumerate(frames):
            Image.fromarray(frame).save(folder / name / f"{index}.png")
    (folder / "bomb" / "2.png").write_bytes(png_header(30000, 30000))
    os.mkfifo(folder / "pipe" / "9.png")
    (folder / "pipe" / "8.png").symlink_to("/dev/zero")
    assert main(["--data", str(folder), "--out", str(tmp_path / "out"), *COLOUR]) == 0
    status = {entry["video_id"]: entry.get("reason", "ok") for entry in manifest(tmp_path / "out")}
    assert status["pictures/good"] == status["pictures/pipe"] == "ok"
    assert "2.png" in status["pictures/bomb"] and "too many pixels" in status["pictures/bomb"]

    clips = good_folder(tmp_path / "labels", 3)
    (clips / "masks.json").write_text('{"1": "gripper"}')
    os.mkfifo(clips / "good0.masks.png")
    (clips / "good1.masks.png").symlink_to("/dev/zero")
    (clips / "good2.masks.png").write_bytes(png_header(30000, 30000))
    assert main(["--data", str(clips), "--out", str(tmp_path / "none")]) == 1
    reasons = [entry["reason"] for entry in manifest(tmp_path / "none")]
    assert len(reasons) == 3 and all("masks.png" in reason for reason in reasons)
    assert "Traceback" not in capsys.readouterr().err


def test_kills_at_random_moments(tmp_path: Path) -> None:
    """Twenty kill -9, each as the run goes on where the last one was killed."""
    folder = good_folder(tmp_path / "videos", 40, length=12)
    out, whole = tmp_path / "a" / "out", tmp_path / "b" / "out"
    assert main(["--data", str(folder), "--out", str(whole), *COLOUR]) == 0
    rng, kills = np.random.default_rng(1), 0
    for _ in range(20):
        child = os.fork()
        if child == 0:  # a process of its own without the second that imports take
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            os._exit(main(["--data", str(folder), "--out", str(out), *COLOUR]))
        time.sleep(rng.uniform(0.01, 0.5))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        kills += os.WIFSIGNALED(status)
        if (out / "dataset_info.json").exists():
            assert examples(out) == examples(whole)
            shutil.rmtree(out)  # it was quick: begin anew
    assert kills >= 10
    assert main(["--data", str(folder), "--out", str(out), *COLOUR]) == 0
    assert contents(out) == contents(whole)
    assert [line["video_id"] for line in manifest(out)] == [l["video_id"] for l in manifest(whole)]


def test_a_limit_on_files_is_a_full_disk(tmp_path: Path) -> None:
    """Files may not grow past a limit that records keep and the shard breaks: one sentence, no data
    set, and all is there once there is room."""
    folder, out = good_folder(tmp_path / "videos", 4), tmp_path / "out"
    command = [sys.executable, "-m", "preprocess_torch", "--data", str(folder), "--out", str(out)]
    (tmp_path / "twin").mkdir()
    assert main(["--data", str(folder), "--out", str(tmp_path / "twin/out"), *COLOUR]) == 0
    twin = contents(tmp_path / "twin/out")
    shard = next((tmp_path / "twin/out").glob("*.tfrecord*"))
    limit = shard.stat().st_size - 1

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(
        [*command, *COLOUR], preexec_fn=limited, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: a file may not grow so large")
    assert "Traceback" not in done.stderr
    with pytest.raises(FileNotFoundError, match="no finished data set"):
        read_records(out)
    assert main(["--data", str(folder), "--out", str(out), *COLOUR]) == 0
    assert contents(out) == twin


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_small_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, disk = good_folder(tmp_path / "videos", 6), tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(disk)], capture_output=True
    )
    if mount.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        args = ["--data", str(folder), "--out", str(disk / "out"), *COLOUR]
        assert main(args) == 1
        errors = capsys.readouterr().err
        assert errors.strip().splitlines()[-1].startswith("error: the disk is full")
        with pytest.raises(FileNotFoundError):
            read_records(disk / "out")
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        assert main(args) == 0
        assert len(read_records(disk / "out")) == 6
    finally:
        subprocess.run(["umount", str(disk)], check=True)
