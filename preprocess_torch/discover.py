"""Find the clips of a folder and group the synchronised views of an episode.

`000.cam0.mp4` and `000.cam1.mp4` are the views `cam0` and `cam1` of episode `000`; `000.mp4`
alone is its only view, `cam0`. A folder of pictures counts as a video of its name: `000/*.png`,
`000.cam1/*.jpg`. LeRobot and RLDS folders are read as they are (datasets.py).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from preprocess_torch.errors import UsageError
from preprocess_torch.sources import FrameFolder, Source, VideoFile, frame_files

SUFFIXES = {".mp4", ".m4v", ".mov", ".webm", ".avi", ".mkv", ".mpg", ".mpeg"}
_VIEW = re.compile(r"(?P<episode>.+)\.(?P<view>cam[^.]*)", re.DOTALL)


@dataclass(frozen=True)
class View:
    """One camera's video of an episode."""

    name: str
    path: Path
    """the video; for other sources what a video of this view would be called, without being
    there."""
    source: Source


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
    if _is_data_set(data):
        return [(data, Path())]
    found = sorted(_below(data))
    if not found:
        kinds = " ".join(sorted(SUFFIXES))
        raise UsageError(
            f"{data} holds no videos ({kinds}), folders of frames, LeRobot or RLDS data, "
            "nor does any folder in it"
        )
    return [(folder, folder.relative_to(data)) for folder in found]


def _below(folder: Path) -> list[Path]:
    subfolders = [
        p for p in folder.iterdir() if p.is_dir() and p.name[0] != "." and not p.is_symlink()
    ]
    return [f for sub in subfolders for f in ([sub] if _is_data_set(sub) else _below(sub))]


def _is_data_set(folder: Path) -> bool:
    from preprocess_torch.datasets import is_lerobot, is_rlds  # imports this module

    return is_lerobot(folder) or is_rlds(folder) or bool(_sources(folder))


def _sources(folder: Path) -> list[tuple[str, Path, Source]]:
    """(name, path, source) of the videos in a folder; where there are none, of the folders of
    frames."""
    videos: list[tuple[str, Path, Source]] = [(p.stem, p, VideoFile(p)) for p in _videos(folder)]
    return sorted(videos or _frame_folders(folder), key=lambda found: found[1])


def _frame_folders(folder: Path) -> list[tuple[str, Path, Source]]:
    """Folders that hold pictures and nothing that is a video or a folder itself."""
    found: list[tuple[str, Path, Source]] = []
    for path in folder.iterdir():
        if path.is_dir() and path.name[0] != "." and not path.is_symlink():
            inside = list(path.iterdir())
            if frame_files(path) and not any(p.is_dir() for p in inside) and not _videos(path):
                found.append((path.name, folder / f"{path.name}.view", FrameFolder(path)))
    return found


def _videos(folder: Path) -> list[Path]:
    return sorted(
        p
        for p in folder.iterdir()
        if p.suffix.lower() in SUFFIXES and p.name[0] != "." and p.is_file()
    )


def find_clips(folder: Path, cameras: tuple[str, ...] = ()) -> list[Clip]:
    """The episodes of one folder, by name; those whose views do not fit the rest carry a
    `problem`.

    `cameras` picks views by name, in that order. Raises `UsageError` when no episode has them, or
    there is none.
    """
    from preprocess_torch.datasets import is_lerobot, is_rlds, lerobot_clips, rlds_clips

    if is_lerobot(folder):
        clips = lerobot_clips(folder)
    elif is_rlds(folder):
        clips = rlds_clips(folder)
    else:
        clips = _file_clips(folder)
    if not clips:
        raise UsageError(f"there are no videos in {folder}")
    if cameras:
        clips = [_pick(clip, cameras) for clip in clips]
        if not any(clip.views for clip in clips):
            known = dict.fromkeys(view.name for clip in find_clips(folder) for view in clip.views)
            raise UsageError(f"--cameras {','.join(cameras)}: {folder} has {', '.join(known)}")
    # what most episodes have is what an episode should have; in a tie, more views
    names = Counter(tuple(view.name for view in clip.views) for clip in clips)
    expected = max(names, key=lambda key: (names[key], len(key)))
    return [_checked(clip, expected) for clip in clips]


def _pick(clip: Clip, cameras: tuple[str, ...]) -> Clip:
    views = tuple(view for name in cameras for view in clip.views if view.name == name)
    return replace(clip, views=views)


def _checked(clip: Clip, expected: tuple[str, ...]) -> Clip:
    """The clip, with a `problem` if its views are not the expected ones."""
    have, problem = tuple(view.name for view in clip.views), None
    if len(set(have)) < len(have):
        files = ", ".join(view.path.name for view in clip.views)
        problem = f"has several files for one view: {files}"
    elif not _is_text(clip.episode_id):
        problem = "has a name that is not UTF-8: rename it"
    elif have != expected:
        problem = f"has the views {', '.join(have)}; the data set has {', '.join(expected)}"
    return replace(clip, problem=problem)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _file_clips(folder: Path) -> list[Clip]:
    episodes: dict[str, list[View]] = defaultdict(list)
    for stem, path, source in _sources(folder):
        match = _VIEW.fullmatch(stem)
        episode, view = (match["episode"], match["view"]) if match else (stem, "cam0")
        episodes[episode].append(View(view, path, source))
    task = folder.resolve().name
    return [Clip(task, episode, tuple(views)) for episode, views in sorted(episodes.items())]
