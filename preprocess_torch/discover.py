"""Find the clips of a folder and group the synchronised views of an episode.

`000.cam0.mp4` and `000.cam1.mp4` are the views `cam0` and `cam1` of episode `000`; `000.mp4`
alone is its only view, `cam0`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from preprocess_torch.errors import UsageError

SUFFIXES = {".mp4", ".m4v", ".mov", ".webm", ".avi", ".mkv", ".mpg", ".mpeg"}
_VIEW = re.compile(r"(?P<episode>.+)\.(?P<view>cam[^.]*)", re.DOTALL)


@dataclass(frozen=True)
class View:
    """One camera's video of an episode."""

    name: str
    path: Path


@dataclass(frozen=True)
class Clip:
    """The synchronised videos of one episode."""

    task: str
    episode_id: str
    views: tuple[View, ...]
    problem: str | None = None
    """why the files do not make up an episode, if they do not."""

    @property
    def video_id(self) -> str:
        """Unique in a data set."""
        return f"{self.task}/{self.episode_id}"


def find_data_sets(data: Path) -> list[tuple[Path, Path]]:
    """(folder, its path below `data`) of every folder that holds videos: `data` itself, or those
    below it.

    Raises `UsageError` when the folder is missing or no videos are found.
    """
    if not data.exists():
        raise UsageError(f"there is no folder {data}")
    if not data.is_dir():
        raise UsageError(f"{data} is a file; give the folder that holds the videos")
    if _videos(data):
        return [(data, Path())]
    found = sorted(_below(data))
    if not found:
        kinds = " ".join(sorted(SUFFIXES))
        raise UsageError(f"{data} holds no videos ({kinds}), nor does any folder in it")
    return [(folder, folder.relative_to(data)) for folder in found]


def _below(folder: Path) -> list[Path]:
    subfolders = [
        p for p in folder.iterdir() if p.is_dir() and p.name[0] != "." and not p.is_symlink()
    ]
    return [f for sub in subfolders for f in ([sub] if _videos(sub) else _below(sub))]


def _videos(folder: Path) -> list[Path]:
    return sorted(
        p
        for p in folder.iterdir()
        if p.suffix.lower() in SUFFIXES and p.name[0] != "." and p.is_file()
    )


def find_clips(folder: Path) -> list[Clip]:
    """The episodes of one folder, by name; those whose views do not fit the rest carry a
    `problem`."""
    episodes: dict[str, list[View]] = defaultdict(list)
    for path in _videos(folder):
        match = _VIEW.fullmatch(path.stem)
        episode, view = (match["episode"], match["view"]) if match else (path.stem, "cam0")
        episodes[episode].append(View(view, path))
    # what most episodes have is what an episode should have; in a tie, more views
    names = Counter(tuple(view.name for view in views) for views in episodes.values())
    expected = max(names, key=lambda key: (names[key], len(key)))
    task, clips = folder.resolve().name, []
    for episode, views in sorted(episodes.items()):
        have, problem = tuple(view.name for view in views), None
        if len(set(have)) < len(have):
            files = ", ".join(view.path.name for view in views)
            problem = f"has several files for one view: {files}"
        elif have != expected:
            problem = f"has the views {', '.join(have)}; the data set has {', '.join(expected)}"
        clips.append(Clip(task, episode, tuple(views), problem))
    return clips
