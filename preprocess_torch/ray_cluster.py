"""`--ray`: the workers of a pool as actors of a Ray cluster, with a share of a GPU each.

Ray starts them where there is room and carries clips and results; which clip goes where, deaths and
time limits are pool.py's business, as with processes. So an actor is never restarted by Ray itself.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from preprocess_torch.config import NETWORKS, PreprocessConfig
from preprocess_torch.errors import UsageError
from preprocess_torch.pool import Died
from preprocess_torch.workers import Worker

LOCAL = "local"
"""an address: a cluster of this machine alone, for this run."""


class RayCluster:
    """See `Transport`."""

    def __init__(self, config: PreprocessConfig, folder: Path):
        ray = connect(config.ray, config.workers)
        gpus = _gpus(config, ray.cluster_resources().get("GPU", 0.0))
        options = {"num_cpus": 1, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
        self._ray, self._make = ray, ray.remote(**options)(Worker)
        self._arguments = (config, folder, 1, os.getcwd())

    def start(self) -> _Actor:
        """See `Transport`."""
        return _Actor(self._ray, self._make.remote(*self._arguments))

    def wait(self, lines: Sequence[_Actor], timeout: float | None) -> list[_Actor]:
        """See `Transport`."""
        answers = [line.answer for line in lines]
        self._ray.wait(answers, num_returns=1, timeout=timeout)
        ready, _ = self._ray.wait(answers, num_returns=len(answers), timeout=0)
        return [line for line in lines if line.answer in ready]


class _Actor:
    """See `Line`."""

    def __init__(self, ray: Any, actor: Any):
        self._ray, self._actor, self.answer = ray, actor, actor.start.remote()

    def ask(self, method: str, *arguments: object) -> None:
        """See `Line`."""
        self.answer = getattr(self._actor, method).remote(*arguments)

    def hear(self) -> Any:
        """See `Line`."""
        try:
            return self._ray.get(self.answer)
        except self._ray.exceptions.RayError as error:
            why = getattr(error, "cause", None) or error  # what the worker raised, or that it died
            return Died((str(why).strip() or type(why).__name__).splitlines()[0])

    def kill(self) -> None:
        """See `Line`."""
        self._ray.kill(self._actor)


def connect(address: str, workers: int) -> Any:
    """The ray module, connected to the cluster at the address, or to one of this machine if that is
    `LOCAL`. Raises `UsageError` without Ray, or when there is no cluster, or it cannot be started.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        message = "--ray needs Ray, which is not installed: make setup EXTRAS=ray"
        raise UsageError(message) from error
    if ray.is_initialized():  # by an earlier data set of this run
        return ray
    known = {name: value for name, value in os.environ.items() if name.startswith("RELAM_")}
    options: dict[str, Any] = {"runtime_env": {"env_vars": known}} if known else {}
    if address == LOCAL:
        options |= {"num_cpus": max(workers, os.cpu_count() or 1)}
        options |= {"include_dashboard": False}
    host, _, port = address.rpartition(":")
    try:
        if host and port.isdigit() and "/" not in host:  # Ray itself tries for many minutes
            socket.create_connection((host, int(port)), timeout=20).close()
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **options)
    except Exception as error:  # that is what Ray raises when it takes more than 30 s to start
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        what = f"there is no Ray cluster at {address}"
        what = "Ray could not be started here" if address == LOCAL else what
        raise UsageError(f"{what}: {first}") from error
    return ray


def _gpus(config: PreprocessConfig, there: float) -> float:
    """The share of a GPU that a worker takes, of the cluster's. Raises `UsageError` if it has too
    few."""
    networks = {config.segmenter, config.tracker} & NETWORKS
    if not there or not networks or config.device == "cpu":
        return 0.0
    if not 0 < config.worker_gpus <= there or (config.worker_gpus > 1 and config.worker_gpus % 1):
        raise UsageError(
            f"--worker_gpus {config.worker_gpus:g}: a share of one, or whole ones of the "
            f"{there:g} that the cluster has"
        )
    return config.worker_gpus
