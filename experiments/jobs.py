"""Jobs that need one another, each a process that can be killed and goes on where it was.

A `Pool` starts what is ready through a runner: `LocalRunner`, processes of this machine, one a
core, or `RayRunner`, tasks of a Ray cluster whose machines see the same files. Nothing is started
for a job whose product is there.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from tqdm import tqdm

from preprocess_torch.ray_cluster import connect

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}
"""Of a process that has one core: two of these are 25 % faster than one with two threads."""


@dataclass(frozen=True)
class Job:
    """One process, and how to see that it need not be run (again)."""

    name: str
    command: tuple[str, ...]
    log: Path
    done: Callable[[], bool]
    """May raise ValueError: what lies there is of another setting."""
    needs: tuple[str, ...] = ()


class Running(Protocol):
    """A job that was started."""

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        ...

    def terminate(self) -> None:
        """Ask it to end (SIGTERM: it writes a checkpoint)."""
        ...


class Runner(Protocol):
    """Where jobs run."""

    slots: int
    """how many at a time."""

    def start(self, job: Job, slot: int) -> Running:
        """Raises OSError if that is not possible."""
        ...


# ---- runners ----


class LocalRunner:
    """Processes of this machine: one a core; one at a time where jax sees a GPU."""

    def __init__(self, workers: int = 0, lock: int = -1) -> None:
        """`workers`: how many at a time (0: see above); `lock`: a descriptor that they inherit."""
        gpu, self._lock = sees_gpu(), lock
        self._environment = os.environ | ({} if gpu else ONE_THREAD)
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self.slots = workers or (1 if gpu else len(cores) or os.cpu_count() or 1)
        self._cores = [] if gpu else cores

    def start(self, job: Job, slot: int) -> Running:
        """See `Runner`."""
        if self._cores:  # of this thread, and of what it starts
            os.sched_setaffinity(0, {self._cores[slot % len(self._cores)]})
        return spawn(
            job.command,
            job.log,
            env=self._environment,
            pass_fds=(self._lock,) if self._lock >= 0 else (),
        )


class RayRunner:
    """Tasks of a Ray cluster, a CPU each (and a GPU, where it has any).

    Every machine has to see the same files under the same paths. A task whose worker or machine
    dies is started again by Ray, and the job goes on where it was.
    """

    def __init__(self, address: str, workers: int = 0) -> None:
        """`address`: of the cluster, or `local`. Raises `UsageError` where Ray is not installed or
        nothing answers."""
        ray = connect(address, workers)
        there = ray.cluster_resources()
        gpus = float(there.get("GPU", 0) > 0)
        self.slots = workers or int(there["GPU" if gpus else "CPU"])
        self._ray, self._environment = ray, {} if gpus else ONE_THREAD
        self._run = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=3)(run_here)

    def start(self, job: Job, slot: int) -> Running:
        """See `Runner`."""
        folder = os.getcwd()
        reference = self._run.remote(job.command, str(job.log), self._environment, folder)
        return _RayTask(self._ray, reference, job.log)


class _RayTask:
    """See `Running`."""

    def __init__(self, ray: Any, reference: Any, log: Path) -> None:
        self._ray, self._reference, self._log = ray, reference, log

    def wait(self) -> int:
        try:
            return self._ray.get(self._reference)
        except self._ray.exceptions.RayError as error:
            with self._log.open("a") as log:
                log.write(f"{(str(error).strip() or type(error).__name__).splitlines()[0]}\n")
            return 1

    def terminate(self) -> None:
        self._ray.cancel(self._reference)  # raises KeyboardInterrupt in `run_here`


def run_here(command: tuple[str, ...], log: str, environment: dict[str, str], folder: str) -> int:
    """A task: the exit code of a command that runs beside the Ray worker and never outlives it."""
    process = spawn(
        command, Path(log), env=os.environ | environment, cwd=folder, preexec_fn=_die_with_parent
    )
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise


def _die_with_parent() -> None:
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def spawn(command: tuple[str, ...], log: Path, **options: Any) -> subprocess.Popen[Any]:
    """Start a command in a session of its own (Ctrl-C does not reach it), its words to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        file.write(f"$ {shlex.join(command)}\n".encode())
        file.flush()
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **options,
        )


def sees_gpu() -> bool:
    """Whether jax computes on an accelerator here, asked in a process that then lets go of it."""
    code = "import jax; print(jax.default_backend())"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return answer.stdout.strip() not in ("", "cpu")


def claim(out: Path) -> IO[str]:
    """A lock that this process and its children hold. ValueError if others do."""
    out.mkdir(parents=True, exist_ok=True)
    lock = (out / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise ValueError(
            f"another run, or what is left of one, is at work in {out}: wait for it"
        ) from error
    return lock


# ---- the pool ----


class Pool:
    """Runs jobs, a thread a slot of the runner. What fails stops what needs it alone."""

    def __init__(self, jobs: dict[str, Job], runner: Runner) -> None:
        self.jobs, self.runner = jobs, runner
        self.changed = threading.Condition()
        self.running: dict[str, Running] = {}
        self.state: dict[str, str] = {}  # waiting, running, done, failed or blocked
        self.problems: list[str] = []
        self.stopping = False
        self.threads: list[threading.Thread] = []
        wanted = set(jobs) - {need for job in jobs.values() for need in job.needs}
        for job in reversed(jobs.values()):  # nothing is made again for what is finished
            try:
                done = job.done()
            except ValueError as error:
                self.state[job.name] = "failed"
                self.problems.append(f"{job.name}: {error}")
                continue
            if not done and job.name in wanted:
                wanted |= set(job.needs)
            self.state[job.name] = "waiting" if not done and job.name in wanted else "done"

    def start(self) -> None:
        """Begin."""
        for slot in range(self.runner.slots):
            self.threads.append(threading.Thread(target=self._work, args=(slot,), daemon=True))
            self.threads[-1].start()

    def active(self) -> bool:
        """Whether a worker is still at it."""
        return any(thread.is_alive() for thread in self.threads)

    def stop(self) -> None:
        """Pass SIGTERM on; no further job starts."""
        with self.changed:
            self.stopping = True
            for running in self.running.values():
                running.terminate()
            self.changed.notify_all()

    def count(self, state: str) -> int:
        """Jobs in this state."""
        return list(self.state.values()).count(state)

    def _next(self) -> Job | None:
        for name, job in self.jobs.items():
            if self.state[name] != "waiting":
                continue
            needs = {self.state[need] for need in job.needs}
            if needs & {"failed", "blocked"}:
                self.state[name] = "blocked"
            elif needs <= {"done"} and not self.stopping:
                return job
        return None

    def _work(self, slot: int) -> None:
        while True:
            with self.changed:
                while (job := self._next()) is None:
                    if self.stopping or not self.running:
                        return
                    self.changed.wait()
                self.state[job.name] = "running"
                began = time.monotonic()
                try:
                    running = self.runner.start(job, slot)
                except OSError as error:
                    self._finish(job, f"{job.name} could not be started: {error}", began)
                    continue
                self.running[job.name] = running
            code = running.wait()
            with self.changed:
                del self.running[job.name]
                self._finish(job, self._problem(job, code), began)

    def _problem(self, job: Job, code: int) -> str | None:
        if self.stopping and code:
            return None
        if code:
            last = [x for x in job.log.read_text(errors="replace").splitlines() if x.strip()][-1]
            return f"{job.name} failed with exit code {code} ({last[:200]}); its log: {job.log}"
        try:
            return None if job.done() else f"{job.name} ended without a result; its log: {job.log}"
        except ValueError as error:
            return f"{job.name}: {error}"

    def _finish(self, job: Job, problem: str | None, began: float) -> None:
        if problem:
            self.problems.append(problem)
            self.state[job.name] = "failed"
            tqdm.write(problem, file=sys.stderr)
        elif self.stopping and not job.done():
            self.state[job.name] = "waiting"
        else:
            self.state[job.name] = "done"
            tqdm.write(
                f"{self.count('done')} of {len(self.jobs)} jobs: {job.name}, "
                f"{(time.monotonic() - began) / 60:.1f} min"
            )
        self.changed.notify_all()
