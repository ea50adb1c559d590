"""A Ray cluster gives the same data set as one process, also when an actor is killed."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from preprocess_torch.cli import main
from relam_jax.keypoints.records import read_records

from .test_cli import contents
from .test_fuzz import COLOUR
from .test_workers import facts, folder

__all__ = ["folder"]  # a fixture

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: make setup EXTRAS=ray"
)


def descendants(of: int, name: bytes) -> list[int]:
    """Processes below `of` whose command line begins with `name`."""
    parents, found = {}, []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rsplit(")", 1)[1].split()[1])
            if (path.parent / "cmdline").read_bytes().startswith(name):
                found.append(int(path.parent.name))
        except (OSError, IndexError):
            continue

    def below(pid: int) -> bool:
        return pid == of or (pid in parents and below(parents[pid]))

    return [pid for pid in found if below(pid)]


@needs_ray
def test_a_killed_actor_loses_nothing(folder: Path, tmp_path: Path) -> None:
    alone, out = tmp_path / "a" / "out", tmp_path / "b" / "out"
    assert main(["--data", str(folder), "--out", str(alone), *COLOUR]) == 0
    command = [sys.executable, "-m", "preprocess_torch", "--data", str(folder), "--out", str(out)]
    command += ["--ray", "local", "--workers", "2", *COLOUR]
    killed: list[int] = []

    def kill(run: subprocess.Popen[str]) -> None:
        while not killed and run.poll() is None:
            # one that works on a clip, not one that still loads
            pids = descendants(run.pid, b"ray::Worker.work")
            if pids and list(out.glob(".parts/*.tfrecord")):
                os.kill(pids[0], signal.SIGKILL)
                killed.append(pids[0])
            time.sleep(0.002)

    for _ in range(3):
        run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        thread = threading.Thread(target=kill, args=(run,))
        thread.start()
        _, said = run.communicate(timeout=600)
        thread.join()
        if "Ray could not be started" not in said:  # in its 30 s, on a busy machine
            break
    assert run.returncode == 0, said
    assert killed
    assert contents(out) == contents(alone)
    assert facts(out) == facts(alone)
    assert len(read_records(out)) == 11


@needs_ray
def test_no_cluster_is_said(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["--data", str(folder), "--out", str(out), "--ray", "127.0.0.1:1", *COLOUR]
    begun = time.monotonic()
    assert main(command) == 2
    assert "there is no Ray cluster at 127.0.0.1:1" in capsys.readouterr().err
    assert time.monotonic() - begun < 60  # Ray itself tries for many minutes
    assert not out.exists()


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_what_to_install_is_said(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", str(folder), "--ray", "local", *COLOUR]) == 2
    assert "make setup EXTRAS=ray" in capsys.readouterr().err
