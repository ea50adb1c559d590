"""The command as a user meets it: good and bad videos, resuming, kills, a full disk, exit codes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from preprocess_torch.cli import main
from preprocess_torch.discover import find_clips
from preprocess_torch.store import Store, file_name
from relam_jax.keypoints import tfrecord
from relam_jax.keypoints.records import read_records

from .synthetic import line, render, write_audio, write_masks, write_video

MakeFolder = Callable[..., Path]


def run(*args: object) -> int:
    return main([str(arg) for arg in args])


def contents(out: Path) -> dict[str, str]:
    """Hash of every file that must not depend on how a run went."""
    files = [p for p in out.rglob("*") if p.is_file() and p.name != "manifest.jsonl"]
    return {
        str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(files)
    }


def manifest(out: Path) -> list[dict]:
    return [json.loads(text) for text in (out / "manifest.jsonl").read_text().splitlines()]


def test_end_to_end_two_views(
    make_folder: MakeFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = make_folder("push", 2, views=2), tmp_path / "out"
    assert run("--data", folder, "--out", out, "--points", 30) == 0
    records = read_records(out)
    assert [r.video_id for r in records] == ["push/000", "push/001"]
    record = records[1]
    assert record.view_names == ("cam0", "cam1") and record.entity_names == ("gripper", "object")
    assert record.tracks.shape == (2, 12, 60, 2) and record.image_size == (96, 96)
    assert record.fps == pytest.approx(20)
    for view in range(2):
        way = 6 + 1 + view
        for entity, (dx, dy) in enumerate([(4, way), (way, -3)]):
            slots = record.entity_id == entity
            # image sides; queries are centres of pixels
            start = record.tracks[view, 0, slots] * 96
            np.testing.assert_allclose(start % 1, 0.5, atol=1e-3)
            moved = np.median(record.tracks[view, -1, slots] * 96 - start, axis=0)
            np.testing.assert_allclose(moved, [dx, dy], atol=0.3)
    image = cv2.imdecode(np.frombuffer(record.first_frames[0], np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (96, 96, 3)
    video = (folder / "001.cam1.mp4").read_bytes()
    assert record.source_sha256[1] == hashlib.sha256(video).hexdigest()
    provenance = json.loads(record.provenance)
    assert provenance["parameters"]["tracker"]["name"] == "lucas_kanade"
    lines = manifest(out)
    assert [entry["status"] for entry in lines] == ["ok", "ok"]
    assert lines[0]["points"] == {"gripper": [30, 30], "object": [30, 30]}
    preview = cv2.imread(str(out / "previews" / "001.png"))
    assert preview is not None and preview.shape[0] > 2 * 96
    assert not (out / ".parts").exists()
    printed = capsys.readouterr()
    assert "2 videos" in printed.out and "%" not in printed.err  # no bar off a terminal


def test_bad_videos_are_named_and_skipped(
    make_folder: MakeFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = make_folder("mixed", 1), tmp_path / "out"
    good = (folder / "000.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(good[: len(good) // 2])
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("hello")
    (folder / "notes.txt").write_text("not looked at")
    (folder / "unmasked.mp4").write_bytes(good)
    write_audio(folder / "sound.mp4")
    frames, masks = render({"gripper": line(1, 1), "object": line(1, 1)})
    write_masks(write_video(folder / "one.mp4", frames[:1]), masks)
    write_video(folder / "odd \n näme.mp4", frames)
    shutil.copy(folder / "000.masks.png", folder / "odd \n näme.masks.png")
    (folder / "broken.mkv").symlink_to(folder / "nowhere.mkv")

    assert run("--data", folder, "--out", out) == 0
    reasons = {entry["video_id"]: entry.get("reason", "") for entry in manifest(out)}
    assert len(reasons) == 8
    assert "one frame" in reasons["mixed/one"]
    assert "no pictures" in reasons["mixed/sound"]
    assert "unmasked.masks.png is missing" in reasons["mixed/unmasked"]
    for name in ("cut", "empty", "text"):
        assert "cut off" in reasons[f"mixed/{name}"] or "not a video" in reasons[f"mixed/{name}"]
    assert [r.episode_id for r in read_records(out)] == ["000", "odd \n näme"]
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    assert all(f"mixed/{name}" in errors for name in ("cut", "empty", "text", "one", "sound"))
    # the same again: the good ones are skipped, the bad ones fail again
    before = contents(out)
    assert run("--data", folder, "--out", out) == 0
    assert contents(out) == before
    assert run("--data", folder, "--out", out, "--strict") == 1


def test_none_good_is_an_error(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder("bad", 1)
    (folder / "000.mp4").write_text("nothing")
    assert run("--data", folder, "--out", tmp_path / "out") == 1
    assert not (tmp_path / "out" / "dataset_info.json").exists()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--data", "nowhere"], "there is no folder nowhere"),
        (["--data", "empty"], "holds no videos"),
        (["--data", "file"], "is a file"),
        (["--data", "ok", "--segmenter", "magic"], "no segmenter 'magic'"),
        (["--data", "ok", "--tracker", "magic"], "no tracker 'magic'"),
        (["--data", "ok", "--points", "0"], "between 1 and 256"),
        (["--data", "ok", "--workers", "0"], "at least 1"),
        (["--data", "ok", "--workers", "2", "--tracker", "magic"], "no tracker 'magic'"),
        (["--data", "ok", "--out", "ok"], "folder of the videos"),
        (["--data", "ok", "--out", "file"], "is a file"),
    ],
)
def test_wrong_commands_get_one_sentence(
    make_folder: MakeFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(make_folder("ok", 1).parent)
    Path("empty").mkdir()
    Path("file").write_text("x")
    assert main(args) == 2
    printed = capsys.readouterr().err.strip()
    assert says in printed and printed.startswith("error: ") and "\n" not in printed
    assert not Path("data").exists() or not any(Path("data").rglob("*.json"))


def test_default_out_and_folders_of_folders(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder("push", 1)
    make_folder("pull", 1)
    monkeypatch.chdir(tmp_path)
    assert run("--data", "videos/") == 0
    assert read_records(Path("data/push"))[0].task == "push"
    assert run("--data", "videos/push") == 0
    assert sorted(p.name for p in Path("data").iterdir()) == ["pull", "push"]
    assert run("--data", "videos", "--out", "else/where") == 0
    assert len(read_records(Path("else/where/pull"))) == 1


def test_one_folder_without_masks_does_not_stop_the_others(
    make_folder: MakeFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (make_folder("bare", 1) / "masks.json").unlink()
    make_folder("push", 1)
    assert run("--data", tmp_path / "videos", "--out", tmp_path / "data") == 2
    printed = capsys.readouterr()
    assert "masks.json is missing" in printed.err and "push: 1 videos" in printed.out
    assert len(read_records(tmp_path / "data" / "push")) == 1


def test_views_that_do_not_fit(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder("push", 3, views=2)
    (folder / "001.cam1.mp4").unlink()
    frames, masks = render({"gripper": line(1, 1, 9), "object": line(2, 2, 9)})
    write_masks(write_video(folder / "002.cam1.mp4", frames), masks)
    assert [c.problem is None for c in find_clips(folder)] == [True, False, True]
    assert run("--data", folder, "--out", tmp_path / "out") == 0
    reasons = [entry.get("reason", "") for entry in manifest(tmp_path / "out")]
    assert "has the views cam0; the data set has cam0, cam1" in reasons[1]
    assert "differ in length: 12 and 9" in reasons[2]


def test_an_entity_out_of_sight_is_padding(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder("push", 1, views=2)
    _, masks = render({"gripper": line(1, 1), "object": line(1, 1)})
    only = {"gripper": masks["gripper"], "object": np.zeros_like(masks["object"])}
    write_masks(folder / "000.cam1.mp4", only)
    assert run("--data", folder, "--out", tmp_path / "out", "--points", 20) == 0
    record = read_records(tmp_path / "out")[0]
    slots = record.entity_id == 1
    assert record.visibility[0, 0, slots].all()
    assert not record.visibility[1][:, slots].any()
    assert (record.confidence[1][:, slots] == 0).all() and (record.tracks[1][:, slots] == 0).all()


def test_runs_are_the_same_byte_for_byte(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder("push", 2)
    for name in ("a/push", "b/push"):
        assert run("--data", folder, "--out", tmp_path / name) == 0
    assert contents(tmp_path / "a/push") == contents(tmp_path / "b/push")


def test_new_and_changed_videos_are_the_only_ones_done(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = make_folder("push", 3), tmp_path / "out"
    kept = (folder / "001.mp4").read_bytes()
    (folder / "001.mp4").unlink()
    assert run("--data", folder, "--out", out) == 0
    done: list[str] = []
    real = __import__("preprocess_torch.workers").workers.process_clip

    def spy(clip, engine, key):
        done.append(clip.episode_id)
        return real(clip, engine, key)

    monkeypatch.setattr("preprocess_torch.workers.process_clip", spy)
    assert run("--data", folder, "--out", out) == 0
    assert done == []
    (folder / "001.mp4").write_bytes(kept)
    assert run("--data", folder, "--out", out) == 0
    assert done == ["001"]
    assert [r.episode_id for r in read_records(out)] == ["000", "001", "002"]
    assert all(entry["seconds"] > 0 for entry in manifest(out))
    # another mask is another record
    _, masks = render({"gripper": line(1, 1), "object": line(1, 1)}, side=20)
    write_masks(folder / "002.mp4", masks)
    assert run("--data", folder, "--out", out) == 0
    assert done == ["001", "002"]
    assert run("--data", folder, "--out", tmp_path / "fresh" / "out") == 0
    assert contents(out) == contents(tmp_path / "fresh" / "out")


def test_other_settings_need_another_folder_or_redo(
    make_folder: MakeFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = make_folder("push", 1), tmp_path / "out"
    assert run("--data", folder, "--out", out, "--points", 20) == 0
    before = contents(out)
    assert run("--data", folder, "--out", out, "--points", 24) == 2
    assert "points 20 → 24" in capsys.readouterr().err
    assert contents(out) == before
    assert run("--data", folder, "--out", out, "--points", 24, "--redo") == 0
    assert read_records(out)[0].num_slots == 48


def test_a_damaged_data_set_is_made_again(
    make_folder: MakeFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = make_folder("push", 2), tmp_path / "out"
    assert run("--data", folder, "--out", out) == 0
    before = contents(out)
    shard = next(out.glob("*.tfrecord*"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    assert run("--data", folder, "--out", out) == 0
    assert "tracked again" in capsys.readouterr().err
    assert contents(out) == before


def test_a_full_disk_loses_nothing(
    make_folder: MakeFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, out = make_folder("push", 3), tmp_path / "out"
    assert run("--data", folder, "--out", out) == 0
    whole = contents(out)
    shutil.rmtree(out)
    real, left = tfrecord.write_synced, 0

    def write(path: Path, data: bytes) -> None:
        nonlocal left
        if left == 0:
            path.write_bytes(data[: len(data) // 2])  # what a full disk leaves
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left -= 1
        real(path, data)

    for module in ("tfrecord", "records"):
        monkeypatch.setattr(f"relam_jax.keypoints.{module}.write_synced", write)
    for allowed in range(30):
        left = allowed
        code = run("--data", folder, "--out", out)
        errors = capsys.readouterr().err
        if code == 0:
            break
        assert code == 1
        assert errors.strip().splitlines()[-1].startswith("error: the disk is full; finished")
        with pytest.raises(FileNotFoundError):
            read_records(out)
    assert allowed > 3
    assert contents(out) == whole


def test_kill_and_resume_equals_an_uninterrupted_run(
    make_folder: MakeFolder, tmp_path: Path
) -> None:
    folder, out = make_folder("push", 4, length=30), tmp_path / "a" / "push"
    whole = tmp_path / "b" / "push"
    assert run("--data", folder, "--out", whole) == 0
    command = [sys.executable, "-m", "preprocess_torch", "--data", str(folder), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(out.glob(".parts/*.tfrecord")) and time.monotonic() < deadline:
        time.sleep(0.01)
        assert process.poll() is None, "finished before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    parts = list(out.glob(".parts/*.tfrecord"))
    assert parts and not (out / "dataset_info.json").exists()
    assert run("--data", folder, "--out", out) == 0
    assert contents(out) == contents(whole)


def test_two_runs_do_not_write_to_one_folder(
    make_folder: MakeFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = make_folder("push", 1), tmp_path / "out"
    with Store(out):
        assert run("--data", folder, "--out", out) == 2
    assert "another run is writing" in capsys.readouterr().err
    assert run("--data", folder, "--out", out) == 0


def test_file_names_are_safe_and_differ() -> None:
    names = ["000", "a/../b", "x\ny", "..", "ü" * 200, "ü" * 201, "a%2Fb", "a/b"]
    files = [file_name(f"task/{name}") for name in names]
    assert files[0] == "000" and len(set(files)) == len(names)
    assert all("/" not in f and "\n" not in f and len(f) < 120 for f in files)
    assert all(not f.startswith(".") for f in files)


def test_the_default_path_needs_neither_torch_nor_tensorflow_nor_jax(
    make_folder: MakeFolder, tmp_path: Path
) -> None:
    code = (
        "import sys; from preprocess_torch.cli import main; "
        f"code = main(['--data', {str(make_folder('push', 1))!r}, "
        f"'--out', {str(tmp_path / 'o')!r}]); "
        "from relam_jax.keypoints.records import read_records; "
        f"read_records({str(tmp_path / 'o')!r}); "
        "heavy = {'torch', 'tensorflow', 'jax', 'grain'} & set(sys.modules); "
        "sys.exit(code or str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
