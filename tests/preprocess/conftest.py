"""Folders of good clips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .synthetic import FRAMES, line, render, write_masks, write_video


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """`make_folder("task", 3)` writes three good two-entity clips with masks."""

    def make(name: str, count: int, views: int = 1, length: int = FRAMES) -> Path:
        folder = tmp_path / "videos" / name
        folder.mkdir(parents=True)
        for episode in range(count):
            for view in range(views):
                way = 6 + episode + view
                shifts = {"gripper": line(4, way, length), "object": line(way, -3, length)}
                frames, masks = render(shifts)
                stem = f"{episode:03d}" + (f".cam{view}" if views > 1 else "")
                write_masks(write_video(folder / f"{stem}.mp4", frames), masks)
        return folder

    return make
