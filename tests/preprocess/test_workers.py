"""Several processes give the same data set as one, also when some of them are killed or hang."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from preprocess_torch.cli import main
from preprocess_torch.config import PreprocessConfig
from preprocess_torch.discover import Clip, View, find_clips
from preprocess_torch.pool import Pool
from preprocess_torch.video import Timing, Video
from relam_jax.keypoints.records import read_records

from .test_cli import contents, manifest
from .test_fuzz import COLOUR, good_clip, good_folder


def facts(out: Path) -> list[dict[str, Any]]:
    """The manifest without what a clock says."""
    return [{k: v for k, v in entry.items() if k != "seconds"} for entry in manifest(out)]


def children() -> list[int]:
    """Processes that this one started with multiprocessing's spawn."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rsplit(")", 1)[1].split()[1])
            command = (path.parent / "cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        if parent == os.getpid() and b"spawn_main" in command:
            found.append(int(path.parent.name))
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = good_folder(tmp_path / "videos", 12, length=40)
    (made / "bad.mp4").write_text("no video")
    good_clip(made / "good5.cam1.mp4")  # an episode with a view too many
    return made


def killer(out: Path, count: int, killed: list[int]) -> None:
    """Kill a worker each time that another record is there, `count` times."""
    seen, deadline = 0, time.monotonic() + 300
    while len(killed) < count and time.monotonic() < deadline:
        records = len(list(out.glob(".parts/*.tfrecord")))
        if records > seen and (pids := children()):
            seen = records
            os.kill(pids[len(killed) % len(pids)], signal.SIGKILL)
            killed.append(pids[len(killed) % len(pids)])
        time.sleep(0.002)


def test_killed_workers_lose_nothing(folder: Path, tmp_path: Path) -> None:
    alone, pool = tmp_path / "a" / "out", tmp_path / "b" / "out"
    assert main(["--data", str(folder), "--out", str(alone), *COLOUR]) == 0
    killed: list[int] = []
    thread = threading.Thread(target=killer, args=(pool, 2, killed))
    thread.start()
    assert main(["--data", str(folder), "--out", str(pool), "--workers", "2", *COLOUR]) == 0
    thread.join()
    assert len(killed) == 2
    assert contents(pool) == contents(alone)
    assert facts(pool) == facts(alone)
    assert len(read_records(pool)) == 11 and not children()
    # a second run has nothing left to do
    begun = manifest(pool)
    assert main(["--data", str(folder), "--out", str(pool), "--workers", "2", *COLOUR]) == 0
    assert manifest(pool) == begun


@dataclass(frozen=True)
class Deadly:
    """A video at which a worker dies, as for want of memory."""

    def read(self, timing: Timing) -> Video:
        raise NotImplementedError

    def digest(self) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        raise NotImplementedError


def test_a_clip_that_kills_its_workers_is_named(folder: Path) -> None:
    clips = find_clips(folder)
    clips[3] = replace(clips[3], views=(View("cam0", clips[3].views[0].path, Deadly()),))
    colours = ("gripper=red", "object=green")
    pool = Pool(PreprocessConfig(folder, segmenter="color", color=colours, workers=2), folder)
    try:
        results = list(pool.results(clips, frozenset()))
    finally:
        pool.close()
    assert sorted(index for index, _ in results) == list(range(len(clips)))
    reasons = {index: result.reason for index, result in results}
    assert reasons[3] == "killed 3 workers (out of memory?)"
    assert [reasons[i] for i in (1, 2, 4)] == [""] * 3


@dataclass(frozen=True)
class Hanging:
    """A video at which the decoder hangs: in C, with Python's lock held, deaf to signals."""

    def read(self, timing: Timing) -> Video:
        ctypes.CDLL(None).signal(signal.SIGTERM, 1)
        ctypes.PyDLL(None).pause()
        raise NotImplementedError

    def digest(self) -> str:
        return "0" * 64


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_clip_that_hangs_is_given_up(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    def with_hanging(folder: Path, cameras: tuple[str, ...] = ()) -> list[Clip]:
        clips = find_clips(folder, cameras)
        clips[3] = replace(clips[3], views=(View("cam0", clips[3].views[0].path, Hanging()),))
        return clips

    monkeypatch.setattr("preprocess_torch.run.find_clips", with_hanging)
    out = tmp_path / "out"
    limit = ("--clip_timeout", "10", "--workers", workers)
    assert main(["--data", str(folder), "--out", str(out), *limit, *COLOUR]) == 0
    slow = [entry for entry in manifest(out) if "--clip_timeout" in entry.get("reason", "")]
    assert [entry["reason"] for entry in slow] == ["took longer than 10 s (--clip_timeout)"]
    assert slow[0]["video_id"] == find_clips(folder)[3].video_id
    assert len(read_records(out)) == 10 and not children()
    # given time, the same command finishes it, and the result is what it would have been
    monkeypatch.undo()
    assert main(["--data", str(folder), "--out", str(out), *COLOUR]) == 0
    alone = tmp_path / "a" / "out"
    assert main(["--data", str(folder), "--out", str(alone), *COLOUR]) == 0
    assert contents(out) == contents(alone)
