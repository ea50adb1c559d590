"""Where, when and with what a number was made."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

import relam_jax

FILE = "provenance.jsonl"
"""In a run folder: one line a start, the first one first."""


def hardware() -> dict[str, Any]:
    """CPU model, cores that this process may use, memory (GB) and what jax computes on."""
    device = jax.devices()[0]
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gb": _memory_gb(),
        "jax_device": "cpu" if device.platform == "cpu" else device.device_kind,
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"


def _memory_gb() -> int | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9)
    except (ValueError, OSError, AttributeError):
        return None


def commit() -> str | None:
    """The commit of this code, `+changes` if files differ from it; None where git knows of none."""
    here = Path(__file__).parent

    def git(*args: str) -> str:
        command = ["git", "-C", str(here), *args]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def provenance() -> dict[str, Any]:
    """Date (UTC), commit, hardware and versions, as JSON can hold them."""
    packages = ("jax", "flax", "mujoco", "metaworld")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "hardware": hardware(),
        "versions": {"relam_jax": relam_jax.__version__, "python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in packages},
    }


def append_provenance(run: Path) -> None:
    """Note a start (or resume) in the run folder."""
    with (run / FILE).open("a") as file:
        file.write(json.dumps(provenance()) + "\n")


def read_provenance(run: Path) -> list[dict[str, Any]]:
    """What `append_provenance` wrote, the first start first; empty if nothing was."""
    path = run / FILE
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
