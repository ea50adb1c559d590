"""Keypoint records on disk: a TFDS data set of TFRecord shards, written and read without
TensorFlow.

    data/drawer_open/
      dataset_info.json      written last: its presence says that the set is whole
      features.json
      drawer_open-train.tfrecord-00000-of-00001

The folder itself is what `tfds.builder_from_directory` takes; `as_dataset()` needs TensorFlow,
`read_records` does not. The data set's version is `<SCHEMA_VERSION>.0.0`. V and Q are the same
for all records of a set, T is not.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from relam_jax.keypoints.schema import SCHEMA_VERSION, KeypointRecord, check_record
from relam_jax.keypoints.tfrecord import frame, read_frames, sync_folder, write_synced

SHARD_BYTES = 64 << 20
INFO = "dataset_info.json"
DATA_VERSION = f"{SCHEMA_VERSION}.0.0"
_NAMES = ("view_names", "entity_names", "source_sha256")
_ARRAYS = ("tracks", "visibility", "confidence", "entity_id")


def record_features(num_views: int, num_slots: int, decode_images: bool = True) -> Any:
    """The `tfds.features.FeaturesDict` of a record; `decode_images=False` reads the JPEGs as they
    are."""
    import tensorflow_datasets as tfds  # 0.8 s, hence not at the top

    f = tfds.features
    image = f.Image(shape=(None, None, 3), encoding_format="jpeg") if decode_images else f.Text()
    per_point = (num_views, None, num_slots)
    return f.FeaturesDict(
        {
            "video_id": f.Text(),
            "episode_id": f.Text(),
            "task": f.Text(),
            "fps": f.Tensor(shape=(), dtype=np.float64, encoding="bytes"),
            "image_size": f.Tensor(shape=(2,), dtype=np.int32),
            "view_names": f.Sequence(f.Text(), length=num_views),
            "entity_names": f.Sequence(f.Text()),
            "tracks": f.Tensor(shape=(*per_point, 2), dtype=np.float32, encoding="zlib"),
            "visibility": f.Tensor(shape=per_point, dtype=np.bool_, encoding="zlib"),
            "confidence": f.Tensor(shape=per_point, dtype=np.float32, encoding="zlib"),
            "entity_id": f.Tensor(shape=(num_slots,), dtype=np.int32),
            "query_frame": f.Scalar(dtype=np.int32),
            "first_frames": f.Sequence(image, length=num_views),
            "source_sha256": f.Sequence(f.Text(), length=num_views),
            "provenance": f.Text(),
        }
    )


def encode_record(record: KeypointRecord) -> bytes:
    """A serialised `tf.train.Example`; equal records give equal bytes. Raises `ValueError` for a
    record off schema."""
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    check_record(record)
    features = record_features(record.num_views, record.num_slots)
    values = {name: getattr(record, name) for name in features}
    values |= {name: list(values[name]) for name in _NAMES}
    values["fps"] = np.float64(record.fps)
    values["image_size"] = np.asarray(record.image_size, np.int32)
    values["first_frames"] = [io.BytesIO(data) for data in record.first_frames]  # kept bit for bit
    serializer = ExampleSerializer(features.get_serialized_info())
    example = serializer.get_tf_example(features.encode_example(values))
    return example.SerializeToString(deterministic=True)


def decode_record(example: bytes) -> KeypointRecord:
    """The inverse of `encode_record`. Raises `ValueError` when the bytes are something else."""
    from tensorflow_datasets.proto import tf_example_pb2

    try:
        message: Any = tf_example_pb2
        found = message.Example.FromString(example).features.feature
        views = len(found["view_names"].bytes_list.value)
        slots = len(found["entity_id"].int64_list.value)
        values: dict[str, Any] = record_features(
            views, slots, decode_images=False
        ).deserialize_example_np(example)
    except Exception as error:  # protobuf, zlib and numpy each raise their own
        raise ValueError(f"not a keypoint record of schema {SCHEMA_VERSION}: {error}") from error
    fields: dict[str, Any] = {
        k: v.decode() if isinstance(v, bytes) else v for k, v in values.items()
    }
    fields |= {name: tuple(v.decode() for v in values[name]) for name in _NAMES}
    fields |= {name: np.array(values[name]) for name in _ARRAYS}  # own, writable memory
    fields["fps"] = float(values["fps"])
    fields["image_size"] = tuple(int(v) for v in values["image_size"])
    fields["first_frames"] = tuple(bytes(v) for v in values["first_frames"])
    record = KeypointRecord(**fields)
    check_record(record)
    return record


def dataset_name(folder: Path) -> str:
    """The folder's name as TFDS allows it in file names: letters, digits, underscores."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", folder.resolve().name).strip("_")
    return name if name[:1].isalpha() else f"data_{name}".rstrip("_")


def write_records(out: Path, records: Sequence[KeypointRecord]) -> None:
    """Write `records` as the data set `out`. Raises `ValueError` when V or Q differ among them."""
    shapes = {(r.num_views, r.num_slots) for r in records}
    if len(shapes) != 1:
        raise ValueError(f"a data set needs one (V, Q) for all records, got {sorted(shapes)}")
    write_examples(out, map(encode_record, records), *shapes.pop())


def write_examples(
    out: Path,
    examples: Iterable[bytes],
    num_views: int,
    num_slots: int,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write serialised records as the data set `out`, replacing what is there.

    All new files are complete on disk, under temporary names, before the first old one goes. The
    old dataset_info.json is then removed, the files are renamed, and the new dataset_info.json
    comes last: a set that was interrupted in between is refused by the reader. A full disk leaves
    the old set as it was.
    """
    from google.protobuf import json_format
    from tensorflow_datasets.core.proto import dataset_info_pb2

    out.mkdir(parents=True, exist_ok=True)
    name, staged = dataset_name(out), []

    def stage(data: bytes) -> Path:
        staged.append(out / f".new-{os.getpid()}-{len(staged)}.tmp")
        write_synced(staged[-1], data)
        return staged[-1]

    try:
        shards, lengths, sizes = [], [], []
        pending: list[bytes] = []
        for example in examples:
            if pending and sum(map(len, pending)) + len(example) > shard_bytes:
                shards.append(stage(b"".join(map(frame, pending))))
                lengths.append(len(pending))
                sizes.append(sum(map(len, pending)))
                pending = []
            pending.append(example)
        if not pending:
            raise ValueError(f"no records to write to {out}")
        shards.append(stage(b"".join(map(frame, pending))))
        lengths.append(len(pending))
        sizes.append(sum(map(len, pending)))

        info = dataset_info_pb2.DatasetInfo(  # pyright: ignore[reportAttributeAccessIssue]
            name=name,
            version=DATA_VERSION,
            file_format="tfrecord",
            description="Keypoint tracks of action-free videos (relam_jax).",
        )
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        info.splits.add(
            name="train", shard_lengths=lengths, num_bytes=sum(sizes), filepath_template=template
        )
        features = json_format.MessageToDict(record_features(num_views, num_slots).to_proto())
        features_file = stage(json.dumps(features, indent=2, sort_keys=True).encode())
        info_json = json_format.MessageToDict(info)
        info_file = stage(json.dumps(info_json, indent=2, sort_keys=True).encode())

        (out / INFO).unlink(missing_ok=True)
        for old in out.glob("*.tfrecord-*-of-*"):
            old.unlink()
        for index, shard in enumerate(shards):
            os.replace(shard, out / f"{name}-train.tfrecord-{index:05d}-of-{len(shards):05d}")
        os.replace(features_file, out / "features.json")
        sync_folder(out)
        os.replace(info_file, out / INFO)
        sync_folder(out)
    finally:
        for path in staged:
            path.unlink(missing_ok=True)


def find_dataset(path: Path) -> Path:
    """The folder that holds dataset_info.json: `path` or its one version folder.

    Raises `FileNotFoundError` with one sentence that says what is missing and what to do.
    """
    path = Path(path)
    hint = f"run `python -m preprocess_torch --data videos/{path.name} --out {path}`"
    if not path.exists():
        raise FileNotFoundError(f"there is no data set at {path}: {hint} first")
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is a file; give the folder of the data set")
    if (path / INFO).exists():
        return path
    versions = sorted(p.parent for p in path.glob(f"*/{INFO}") if p.parent.name[:1].isdigit())
    if versions:
        return versions[-1]
    state = (
        "holds no finished data set (no dataset_info.json)" if any(path.iterdir()) else "is empty"
    )
    raise FileNotFoundError(f"{path} {state}: {hint}; it goes on where it was interrupted")


def read_examples(path: Path) -> Iterator[bytes]:
    """The serialised records of a data set, in the order of writing, each with its check sums
    verified.

    Raises `FileNotFoundError` (no set, a shard gone) or `ValueError` (damage, unknown schema
    version).
    """
    folder = find_dataset(path)
    again = "delete the folder and run preprocess_torch again"
    try:
        info = json.loads((folder / INFO).read_text())
        version = str(info["version"])
        (split,) = (s for s in info["splits"] if s["name"] == "train")
        lengths = [int(n) for n in split["shardLengths"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / INFO} is damaged ({error!r}): {again}") from error
    if version.split(".")[0] != str(SCHEMA_VERSION):
        raise ValueError(
            f"{folder} has schema version {version}, this relam_jax reads {DATA_VERSION}: "
            "run preprocess_torch again, or use the relam_jax that wrote it"
        )
    for index, length in enumerate(lengths):
        name = f"{info['name']}-train.tfrecord-{index:05d}-of-{len(lengths):05d}"
        shard, count = folder / name, 0
        if not shard.exists():
            raise FileNotFoundError(f"{shard} is missing: {again}")
        try:
            for example in read_frames(shard):
                yield example
                count += 1
        except ValueError as error:
            raise ValueError(f"{error}: {again}") from error
        if count != length:
            raise ValueError(f"{shard} holds {count} records instead of {length}: {again}")


def read_records(path: Path | str) -> list[KeypointRecord]:
    """All records of a data set, in the order of writing. Errors as `read_examples`."""
    return [decode_record(example) for example in read_examples(Path(path))]
