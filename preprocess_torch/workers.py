"""A worker: builds one engine, models included, and turns clip after clip into records.

It may be this process (`Here`), or one of a `Pool` (pool.py), wherever that starts it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from preprocess_torch.config import PreprocessConfig
from preprocess_torch.discover import Clip
from preprocess_torch.errors import ClipError, NotFoundError, UsageError
from preprocess_torch.pipeline import Engine, build_engine, clip_key, process_clip
from preprocess_torch.preview import masks_png, preview_png
from relam_jax.keypoints.records import encode_record
from relam_jax.keypoints.schema import KeypointRecord


@dataclass(frozen=True)
class Settings:
    """What the process that writes must know of an engine."""

    settings: dict[str, Any]
    """`Engine.describe()`."""
    cameras: tuple[str, ...]
    slots: int
    """Q of every record."""


@dataclass(frozen=True)
class Result:
    """What came of a clip."""

    key: str
    """of its record; empty when its files could not be read."""
    reason: str = ""
    """why it failed, if it did."""
    example: bytes = b""
    """the record, serialised; none of a clip that failed or was finished before."""
    preview: bytes = b""
    """PNG."""
    facts: dict[str, Any] = field(default_factory=dict)
    """for the manifest."""
    frames: int = 0
    """all views."""


def settings_of(engine: Engine) -> Settings:
    """See `Settings`."""
    slots = engine.points * len(engine.segmenter.entities)
    return Settings(engine.describe(), engine.cameras, slots)


def work(clip: Clip, engine: Engine, finished: frozenset[str]) -> Result:
    """Track a clip whose key is not among those `finished`; whatever goes wrong is its alone."""
    key, begun = "", time.monotonic()
    try:
        key = clip_key(clip, engine)
        if key in finished:
            return Result(key)
        if clip.problem:
            raise ClipError(clip.problem)
        processed = process_clip(clip, engine, key)
        record = processed.record
        example, preview = encode_record(record), preview_png(processed)
    except NotFoundError as error:
        png = masks_png(error.frames, error.masks, engine.segmenter.entities)
        return Result(key, str(error), preview=png)
    except ClipError as error:
        return Result(key, str(error))
    except MemoryError:
        return Result(key, "needs more memory than there is: use --trim, --fps or fewer --workers")
    except Exception as error:
        first_line = (str(error).strip() or "no message").splitlines()[0]
        return Result(key, f"{type(error).__name__}: {first_line}")
    facts = _facts(record) | {"seconds": round(time.monotonic() - begun, 2)}
    return Result(key, "", example, preview, facts, record.num_frames * record.num_views)


def _facts(record: KeypointRecord) -> dict[str, Any]:
    first = record.visibility[:, 0]
    return {
        "frames": record.num_frames,
        "points": {
            name: [int(first[v, record.entity_id == e].sum()) for v in range(record.num_views)]
            for e, name in enumerate(record.entity_names)
        },
        "seen": round(float(record.visibility.mean(1)[first].mean()), 3),
    }


class Worker:
    """What a process of a pool does when it is asked to; it is asked one thing at a time."""

    def __init__(self, config: PreprocessConfig, folder: Path, threads: int, place: str):
        self._config, self._folder, self._threads, self._place = config, folder, threads, place
        self._engine: Engine | None = None
        self._finished: frozenset[str] = frozenset()

    def start(self) -> Settings | UsageError:
        """Build the engine, in the folder in which the command was given."""
        import cv2

        os.environ.setdefault("OMP_NUM_THREADS", str(self._threads))
        cv2.setNumThreads(self._threads)
        try:
            os.chdir(self._place)
            if not self._folder.is_dir():
                raise FileNotFoundError(self._folder)
        except OSError:
            return UsageError(
                f"{socket.gethostname()} does not see {Path(self._place, self._folder)}: "
                "videos, weights and programs have to be under the same paths on all machines"
            )
        try:
            self._engine = build_engine(self._config, self._folder)
        except UsageError as error:
            return error
        return settings_of(self._engine)

    def work(self, clip: Clip, finished: frozenset[str] | None) -> Result:
        """See `work`; `finished` is given with the first clip."""
        assert self._engine
        self._finished = self._finished if finished is None else finished
        return work(clip, self._engine, self._finished)


class Here:
    """This process does the work."""

    def __init__(self, config: PreprocessConfig, folder: Path):
        self._engine = build_engine(config, folder)
        self.settings = settings_of(self._engine)

    def results(
        self, clips: Sequence[Clip], finished: frozenset[str]
    ) -> Iterator[tuple[int, Result]]:
        """(index of a clip, what came of it), in any order, each clip once."""
        for index, clip in enumerate(clips):
            yield index, work(clip, self._engine, finished)

    def close(self) -> None:
        """Nothing to do."""
