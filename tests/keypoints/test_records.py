"""Records on disk: what is written is read, by tfds too; damage is refused with one sentence."""

from __future__ import annotations

import importlib.util
import json
import pickle
import subprocess
import sys
import tempfile
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relam_jax.keypoints.records import (
    INFO,
    dataset_name,
    decode_record,
    encode_record,
    find_dataset,
    read_records,
    write_examples,
    write_records,
)
from relam_jax.keypoints.schema import KeypointRecord, check_record
from relam_jax.keypoints.tfrecord import frame, read_frames


def make_record(
    index: int = 0, views: int = 2, frames: int = 7, slots: int = 6, seed: int = 0
) -> KeypointRecord:
    rng = np.random.default_rng([seed, index])
    picture = rng.integers(0, 255, (16, 24, 3)).astype(np.uint8)
    jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
    shape = (views, frames, slots)
    return KeypointRecord(
        video_id=f"tâsk/{index}\n",
        episode_id=f"{index}\n",
        task="tâsk",
        fps=29.97,
        image_size=(16, 24),
        view_names=tuple(f"cam{v}" for v in range(views)),
        entity_names=("gripper", "object"),
        tracks=rng.normal(0.5, 0.3, (*shape, 2)).astype(np.float32),
        visibility=rng.random(shape) < 0.7,
        confidence=rng.random(shape, dtype=np.float32),
        entity_id=np.sort(rng.integers(0, 2, slots)).astype(np.int32),
        query_frame=0,
        first_frames=(jpeg + b"\0\0",) * views,  # bytes stay as they are, also trailing zeros
        source_sha256=tuple("ab" * 32 for _ in range(views)),
        provenance=json.dumps({"schema_version": 1, "key": str(index)}),
    )


def assert_equal(a: KeypointRecord, b: KeypointRecord) -> None:
    for field in fields(KeypointRecord):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, np.ndarray):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)
        else:
            assert x == y and type(x) is type(y), field.name


@settings(max_examples=25, deadline=None)
@given(
    views=st.integers(1, 3),
    slots=st.integers(1, 9),
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    seed=st.integers(0, 2**31),
    shard_bytes=st.sampled_from([1, 2000, 1 << 20]),
)
def test_what_is_written_is_read(
    views: int, slots: int, lengths: list[int], seed: int, shard_bytes: int
) -> None:
    records = [make_record(i, views, n, slots, seed) for i, n in enumerate(lengths)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        write_examples(out, map(encode_record, records), views, slots, shard_bytes)
        found = read_records(out)
    assert len(found) == len(records)
    for record, read in zip(records, found, strict=True):
        assert_equal(record, read)


def test_equal_records_are_equal_bytes() -> None:
    assert encode_record(make_record()) == encode_record(make_record())


def test_a_version_folder_is_found(tmp_path: Path) -> None:
    write_records(tmp_path / "set" / "1.0.0", [make_record()])
    assert find_dataset(tmp_path / "set") == tmp_path / "set" / "1.0.0"
    assert len(read_records(tmp_path / "set")) == 1


@pytest.mark.parametrize(
    ("folder", "name"), [("drawer_open", "drawer_open"), ("a-b c", "a_b_c"), ("3d", "data_3d")]
)
def test_tfds_names(folder: str, name: str) -> None:
    assert dataset_name(Path("data") / folder) == name


def test_tfds_knows_the_folder(tmp_path: Path) -> None:
    """Metadata and numpy decoding, as far as tfds goes without TensorFlow."""
    import tensorflow_datasets as tfds

    records = [make_record(i, frames=4 + i) for i in range(3)]
    write_records(tmp_path / "my-set", records)
    builder = tfds.builder_from_directory(str(tmp_path / "my-set"))
    assert builder.info.splits["train"].num_examples == 3
    shard = next((tmp_path / "my-set").glob("*.tfrecord*"))
    decoded = builder.info.features.deserialize_example_np(next(read_frames(shard)))
    np.testing.assert_array_equal(decoded["tracks"], records[0].tracks)
    assert np.shape(decoded["first_frames"]) == (2, 16, 24, 3)


TENSORFLOW_READER = """
import glob, pickle, sys
import tensorflow as tf, tensorflow_datasets as tfds
folder, target = sys.argv[1:]
builder = tfds.builder_from_directory(folder)
rows = list(tfds.as_numpy(builder.as_dataset(split="train", shuffle_files=False)))
raw = tf.data.TFRecordDataset(sorted(glob.glob(folder + "/*.tfrecord*")))
parsed = raw.map(builder.info.features.deserialize_example).as_numpy_iterator()
pickle.dump((rows, list(raw.as_numpy_iterator()), list(parsed)), open(target, "wb"))
"""


def test_tfds_and_tf_data_read_the_same(tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("optional extra: make setup EXTRAS=tensorflow")
    records = [make_record(i, frames=4 + i) for i in range(5)]
    out = tmp_path / "set"
    write_examples(out, map(encode_record, records), 2, 6, shard_bytes=2500)
    assert len(list(out.glob("*.tfrecord*"))) > 1
    # in a process of its own, as a user's would be: TensorFlow's libraries crash beside jax's here
    read = tmp_path / "read.pickle"
    command = [sys.executable, "-c", TENSORFLOW_READER, str(out), str(read)]
    subprocess.run(command, check=True, capture_output=True)
    rows, raw, parsed = pickle.loads(read.read_bytes())
    by_id = {row["video_id"].decode(): row for row in rows}
    assert len(by_id) == 5
    for record in records:
        row = by_id[record.video_id]
        for name in ("tracks", "visibility", "confidence", "entity_id", "image_size"):
            np.testing.assert_array_equal(row[name], getattr(record, name))
        assert row["fps"] == record.fps and row["query_frame"] == 0
        assert [v.decode() for v in row["view_names"]] == list(record.view_names)
        assert row["provenance"].decode() == record.provenance
        assert row["first_frames"].shape == (2, 16, 24, 3)
    for record, example in zip(records, raw, strict=True):
        assert_equal(record, decode_record(example))
    for record, row in zip(records, parsed, strict=True):
        np.testing.assert_array_equal(row["tracks"], record.tracks)


def test_missing_and_empty_folders_say_what_to_do(tmp_path: Path) -> None:
    command = "run `python -m preprocess_torch --data videos/"
    with pytest.raises(FileNotFoundError, match="there is no data set at") as missing:
        read_records(tmp_path / "nothing")
    assert command in str(missing.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="is empty"):
        read_records(tmp_path / "empty")
    (tmp_path / "empty" / "config.json").touch()
    with pytest.raises(FileNotFoundError, match=r"no dataset_info\.json"):
        read_records(tmp_path / "empty")
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match="is a file"):
        read_records(tmp_path / "file")


def test_every_flipped_byte_and_every_cut_is_noticed(tmp_path: Path) -> None:
    out = tmp_path / "set"
    write_records(out, [make_record(i) for i in range(2)])
    shard = next(out.glob("*.tfrecord*"))
    good = shard.read_bytes()
    for at in np.linspace(0, len(good) - 1, 60).astype(int):
        bad = bytearray(good)
        bad[at] ^= 0x40
        shard.write_bytes(bad)
        with pytest.raises(ValueError, match=r"corrupt|cut off"):
            read_records(out)
        shard.write_bytes(good[:at])
        with pytest.raises(ValueError, match=r"cut off|instead of 2"):
            read_records(out)
    shard.write_bytes(good + frame(b"more"))
    with pytest.raises(ValueError, match=r"not a keypoint record|instead of 2"):
        read_records(out)
    shard.unlink()
    with pytest.raises(FileNotFoundError, match="is missing"):
        read_records(out)


def test_other_schema_versions_are_refused(tmp_path: Path) -> None:
    write_records(tmp_path, [make_record()])
    info = tmp_path / INFO
    text = info.read_text()
    info.write_text(text.replace("1.0.0", "7.0.0"))
    with pytest.raises(ValueError, match=r"schema version 7\.0\.0, this relam_jax reads 1\.0\.0"):
        read_records(tmp_path)
    for damaged in ("{", "[]", text.replace("shardLengths", "other")):
        info.write_text(damaged)
        with pytest.raises(ValueError, match="is damaged"):
            read_records(tmp_path)


def test_a_failed_write_leaves_the_old_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_records(tmp_path, [make_record(0)])
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(path: Path, data: bytes) -> None:
        path.write_bytes(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("relam_jax.keypoints.records.write_synced", full)
    with pytest.raises(OSError, match="No space"):
        write_records(tmp_path, [make_record(1)])
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_kill_between_the_renames_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old and new files never pass for one set."""
    import os

    real = os.replace
    for survived in range(5):
        out = tmp_path / str(survived)
        write_examples(out, map(encode_record, [make_record(0), make_record(1)]), 2, 6, 1)
        calls = 0

        def replace_until(a: Path, b: Path, survived: int = survived) -> None:
            nonlocal calls
            if calls == survived:
                raise KeyboardInterrupt
            calls += 1
            real(a, b)

        monkeypatch.setattr(os, "replace", replace_until)
        try:
            write_examples(out, map(encode_record, [make_record(2), make_record(3)]), 2, 6, 1)
        except KeyboardInterrupt:
            with pytest.raises(FileNotFoundError, match=r"no dataset_info\.json"):
                read_records(out)
        else:
            assert survived == 4 and read_records(out)[0].episode_id == "2\n"
        monkeypatch.setattr(os, "replace", real)


def test_records_off_schema_are_not_written(tmp_path: Path) -> None:
    record = make_record()
    nan = record.tracks.copy()
    nan[0, 0, 0] = np.nan
    bad = {
        "NaN": replace(record, tracks=nan),
        "float32": replace(record, tracks=record.tracks.astype(np.float64)),
        "leaves": replace(record, confidence=record.confidence + 1),
        "points past": replace(record, entity_names=()),
        "one entry a view": replace(record, source_sha256=("x",)),
        "outside the clip": replace(record, query_frame=99),
    }
    for message, wrong in bad.items():
        with pytest.raises(ValueError, match=message):
            check_record(wrong)
        with pytest.raises(ValueError, match=message):
            encode_record(wrong)
    with pytest.raises(ValueError, match="one \\(V, Q\\)"):
        write_records(tmp_path, [record, make_record(slots=5)])
    with pytest.raises(ValueError, match="not a keypoint record"):
        decode_record(b"nonsense")
