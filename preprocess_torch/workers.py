"""Who turns clips into records: this process, or several of their own (`--workers`).

Each worker builds one engine, models included, and is given clip after clip; only the process that
started them writes. A worker that dies is replaced and its clip is given out again.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from preprocess_torch.config import PreprocessConfig
from preprocess_torch.discover import Clip
from preprocess_torch.errors import ClipError, NotFoundError, UsageError
from preprocess_torch.pipeline import Engine, build_engine, clip_key, process_clip
from preprocess_torch.preview import masks_png, preview_png
from relam_jax.keypoints.records import encode_record
from relam_jax.keypoints.schema import KeypointRecord

TRIES = 3
"""deaths of workers at one clip, or while they start, before it is given up."""


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


class _Worker:
    """A process with an engine, and the clip that it has in work."""

    def __init__(self, config: PreprocessConfig, folder: Path):
        context = multiprocessing.get_context("spawn")  # torch and threads do not survive a fork
        self.connection, theirs = context.Pipe()
        threads = max(1, (os.cpu_count() or 1) // config.workers)
        arguments = (theirs, config, folder, threads)
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        self.process.start()
        theirs.close()
        self.clip: int | None = None
        self.ready = False

    def give(self, what: object) -> None:
        """Send something; that the worker is dead is seen where its answer is awaited."""
        with suppress(OSError):
            self.connection.send(what)

    def hear(self) -> Any:
        """Its next message; None when it is dead. Raises `UsageError` that it met."""
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            return None
        if isinstance(message, UsageError):
            raise message
        return message


class Pool:
    """`config.workers` processes on this machine; with the same methods as `Here`."""

    def __init__(self, config: PreprocessConfig, folder: Path):
        self._config, self._folder, self._starts = config, folder, 0
        self._workers = [_Worker(config, folder) for _ in range(config.workers)]
        try:
            while not (first := self._workers[0].hear()):
                self._replace(self._workers[0])
        except BaseException:
            self.close()
            raise
        self.settings: Settings = first

    def results(
        self, clips: Sequence[Clip], finished: frozenset[str]
    ) -> Iterator[tuple[int, Result]]:
        """See `Here`."""
        waiting, deaths, left = deque(range(len(clips))), Counter[int](), len(clips)
        self._begin(self._workers[0], finished)
        while left:
            for worker in self._workers:
                if worker.ready and worker.clip is None and waiting:
                    worker.clip = waiting.popleft()
                    worker.give(clips[worker.clip])
            heard = wait([worker.connection for worker in self._workers])
            for worker in [w for w in self._workers if w.connection in heard]:
                message, index = worker.hear(), worker.clip
                if isinstance(message, Settings):
                    self._begin(worker, finished)
                    continue
                if message is None:
                    self._replace(worker)
                    if index is None:
                        continue
                    deaths[index] += 1
                    if deaths[index] < TRIES:
                        waiting.appendleft(index)
                        continue
                    message = Result("", f"killed {TRIES} workers (out of memory?)")
                worker.clip = None
                left -= 1
                if index is not None:
                    yield index, message

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.process.kill()
            worker.process.join()
            worker.connection.close()

    def _begin(self, worker: _Worker, finished: frozenset[str]) -> None:
        worker.give(finished)
        worker.ready = True

    def _replace(self, worker: _Worker) -> None:
        """Start another in place of a dead one. Raises `UsageError` when none gets ready."""
        if not worker.ready:
            self._starts += 1
            if self._starts >= TRIES:
                raise UsageError(
                    f"{TRIES} workers died while they loaded their models (out of memory?): "
                    "use fewer --workers"
                )
        worker.connection.close()
        self._workers[self._workers.index(worker)] = _Worker(self._config, self._folder)


def _serve(connection: Connection, config: PreprocessConfig, folder: Path, threads: int) -> None:
    """A worker's life: build an engine, answer clips until there is nobody to answer to."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other process ends this one
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    cv2.setNumThreads(threads)
    try:
        try:
            engine = build_engine(config, folder)
        except UsageError as error:
            connection.send(error)
            return
        connection.send(settings_of(engine))
        finished = connection.recv()
        while True:
            connection.send(work(connection.recv(), engine, finished))
    except (EOFError, OSError):
        return
