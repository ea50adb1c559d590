"""Several workers (`--workers`, `--ray`), each with one clip in work; this process alone writes.

A worker that dies is replaced and its clip is given out again; one that takes too long is killed.
Who starts the workers and carries the words is a `Transport`: processes of this machine here, a
Ray cluster in ray_cluster.py.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from preprocess_torch.config import PreprocessConfig
from preprocess_torch.discover import Clip
from preprocess_torch.errors import UsageError
from preprocess_torch.workers import Result, Settings, Worker

TRIES = 3
"""deaths of workers at one clip, or in a row while they start, before it is given up."""


@dataclass(frozen=True)
class Died:
    """Heard in place of an answer."""

    reason: str = ""


@runtime_checkable
class Line(Protocol):
    """The way to one `Worker`, who has been asked to `start`."""

    def ask(self, method: str, *arguments: object) -> None:
        """Call a method of the worker; a dead one is noticed where its answer is awaited."""
        ...

    def hear(self) -> Any:
        """The answer, once `Transport.wait` has named this line; `Died` if there is none."""
        ...

    def kill(self) -> None:
        """End the worker, whatever it is doing."""
        ...


@runtime_checkable
class Transport(Protocol):
    """Starts workers."""

    def start(self) -> Line:
        """Start one more worker."""
        ...

    def wait(self, lines: Sequence[Any], timeout: float | None) -> list[Any]:
        """Those of `lines` with something to hear; waits for one, `timeout` seconds at most."""
        ...


@dataclass
class _Slot:
    """A worker's place in the pool."""

    line: Line
    ready: bool = False
    told: bool = False
    """it knows what is finished."""
    clip: int | None = None
    """what it has in work."""
    begun: float = 0.0


class Pool:
    """`config.workers` workers; with the same methods as `Here`."""

    def __init__(self, config: PreprocessConfig, folder: Path):
        self._limit, self._starts = config.clip_timeout, 0
        self._transport = _transport(config, folder)
        self._slots: list[_Slot] = []
        self.settings: Settings
        try:
            self._slots += [_Slot(self._transport.start()) for _ in range(config.workers)]
            while not any(slot.ready for slot in self._slots):
                self._answers()
        except BaseException:
            self.close()
            raise

    def results(
        self, clips: Sequence[Clip], finished: frozenset[str]
    ) -> Iterator[tuple[int, Result]]:
        """See `Here`."""
        waiting, deaths, left = deque(range(len(clips))), Counter[int](), len(clips)
        while left:
            for slot in self._slots:
                if slot.ready and slot.clip is None and waiting:
                    slot.clip, slot.begun = waiting.popleft(), time.monotonic()
                    slot.line.ask("work", clips[slot.clip], None if slot.told else finished)
                    slot.told = True
            for index, answer in self._answers():
                if isinstance(answer, Died):
                    deaths[index] += 1
                    if deaths[index] < TRIES:
                        waiting.appendleft(index)
                        continue
                    answer = Result("", f"killed {TRIES} workers (out of memory?)")
                left -= 1
                yield index, answer

    def close(self) -> None:
        """End the workers."""
        for slot in self._slots:
            slot.line.kill()

    def _answers(self) -> list[tuple[int, Result | Died]]:
        """Wait for something to happen. Returns what came of clips; their workers are free then, or
        replaced. Raises `UsageError` that a worker met, or when none gets ready."""
        busy = [slot for slot in self._slots if not slot.ready or slot.clip is not None]
        timeout = None
        if self._limit and (begun := [slot.begun for slot in busy if slot.clip is not None]):
            timeout = max(0.0, min(begun) + self._limit - time.monotonic())
        heard, answers = self._transport.wait([slot.line for slot in busy], timeout), []
        for slot in busy:
            if slot.line in heard:
                answer = slot.line.hear()
            elif self._limit and slot.clip is not None and self._overdue(slot):
                answer = Result("", f"took longer than {self._limit:g} s (--clip_timeout)")
            else:
                continue
            if isinstance(answer, UsageError):
                raise answer
            if isinstance(answer, Settings):
                if getattr(self, "settings", answer) != answer:
                    raise UsageError("the workers' machines differ in their models or versions")
                self.settings, self._starts, slot.ready = answer, 0, True
                continue
            if slot.clip is not None:
                answers.append((slot.clip, answer))
                slot.clip = None
            if isinstance(answer, Died) or slot.line not in heard:
                self._replace(slot, answer)
        return answers

    def _overdue(self, slot: _Slot) -> bool:
        return time.monotonic() - slot.begun >= self._limit

    def _replace(self, slot: _Slot, answer: Died | Result) -> None:
        if not slot.ready:
            self._starts += 1
            if self._starts >= TRIES:
                reason = (isinstance(answer, Died) and answer.reason) or "out of memory?"
                raise UsageError(
                    f"{TRIES} workers died while they loaded their models ({reason}): "
                    "use fewer --workers"
                )
        slot.line.kill()
        self._slots[self._slots.index(slot)] = _Slot(self._transport.start())


def _transport(config: PreprocessConfig, folder: Path) -> Transport:
    if not config.ray:
        return Processes(config, folder)
    from preprocess_torch.ray_cluster import RayCluster

    return RayCluster(config, folder)


class Processes:
    """Workers are processes of this machine."""

    def __init__(self, config: PreprocessConfig, folder: Path):
        threads = max(1, (os.cpu_count() or 1) // config.workers)
        self._arguments = (config, folder, threads, os.getcwd())

    def start(self) -> Line:
        """See `Transport`."""
        return _Pipe(self._arguments)

    def wait(self, lines: Sequence[_Pipe], timeout: float | None) -> list[_Pipe]:
        """See `Transport`."""
        ready = wait([line.connection for line in lines], timeout)
        return [line for line in lines if line.connection in ready]


class _Pipe:
    """See `Line`."""

    def __init__(self, arguments: tuple[Any, ...]):
        context = multiprocessing.get_context("spawn")  # torch and threads do not survive a fork
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, *arguments), daemon=True)
        self._process.start()
        theirs.close()
        self.ask("start")

    def ask(self, method: str, *arguments: object) -> None:
        """See `Line`."""
        with suppress(OSError):
            self.connection.send((method, arguments))

    def hear(self) -> Any:
        """See `Line`."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return Died()

    def kill(self) -> None:
        """See `Line`."""
        self._process.kill()
        self._process.join()
        self.connection.close()


def _serve(connection: Connection, *arguments: Any) -> None:
    """A process's life: answer until there is nobody to answer to."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other process ends this one
    worker = Worker(*arguments)
    with suppress(EOFError, OSError):
        while True:
            method, given = connection.recv()
            connection.send(getattr(worker, method)(*given))
