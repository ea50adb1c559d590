"""Worker processes, started once for the whole program and replaced when one dies."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from multiprocessing import Pipe
from typing import Any

NOT_INSTALLED = (
    "ManiSkill is not installed: run `make setup EXTRAS=maniskill` (no GPU, no Vulkan needed)"
)


class WorkerDiedError(Exception):
    """The process is gone; what was asked of it is lost."""


class Worker:
    """One process (see `worker.py`); `generation` counts how often it has been replaced."""

    def __init__(self) -> None:
        self.generation = -1
        self.restart()

    def restart(self) -> None:
        """Start a new process in place of the old one. Raises ValueError without ManiSkill."""
        if importlib.util.find_spec("mani_skill") is None:
            raise ValueError(NOT_INSTALLED)
        if self.generation >= 0:
            self.channel.close()
            self.process.kill()
            self.process.wait()
        self.channel, theirs = Pipe()
        os.set_inheritable(theirs.fileno(), True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "relam_jax.envs.maniskill.worker", str(theirs.fileno())],
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self.generation += 1

    def send(self, method: str, group: int, *arguments: Any) -> None:
        """Ask for something. Raises WorkerDiedError."""
        try:
            self.channel.send((method, group, arguments))
        except OSError as error:
            raise WorkerDiedError from error

    def receive(self) -> Any:
        """The answer. Raises WorkerDiedError, or ValueError with what the worker complains of."""
        try:
            good, result = self.channel.recv()
        except (EOFError, OSError) as error:
            raise WorkerDiedError from error
        if not good:
            raise ValueError(result)
        return result


_WORKERS: list[Worker] = []


def shared_workers(count: int) -> list[Worker]:
    """The first `count` workers of this program: training and evaluation share them."""
    while len(_WORKERS) < count:
        _WORKERS.append(Worker())
    return _WORKERS[:count]
