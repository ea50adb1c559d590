"""Go through the videos of one data set: skip what is finished, report what is bad, merge at the
end."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from preprocess_torch.config import PreprocessConfig
from preprocess_torch.discover import Clip, find_clips
from preprocess_torch.errors import UsageError, printable
from preprocess_torch.pool import Pool
from preprocess_torch.store import Store
from preprocess_torch.workers import Here, Result


@dataclass(frozen=True)
class Summary:
    """What came of a data set."""

    out: Path
    done: int
    """videos tracked in this run."""
    skipped: int
    """finished by an earlier run."""
    failed: int
    frames: int
    """decoded and tracked in this run, all views."""
    seconds: float

    def __str__(self) -> str:
        rate = self.frames / self.seconds if self.seconds > 0 else 0.0
        text = f"{self.out}: {self.done + self.skipped} videos"
        text += f" ({self.skipped} were finished before)" if self.skipped else ""
        text += f", {self.failed} failed (see {self.out / 'manifest.jsonl'})" if self.failed else ""
        return text + (f", {self.seconds:.0f} s, {rate:.0f} frames/s" if self.done else "")


def run_data_set(config: PreprocessConfig, folder: Path, out: Path) -> Summary:
    """Track all clips of `folder` into the data set `out`.

    Raises `UsageError` before anything is touched, and `OSError` (a full disk) with all finished
    videos kept.
    """
    if out.resolve() == folder.resolve():
        raise UsageError(f"--out {out} is the folder of the videos: give another")
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file: give a folder")
    if config.workers < 1:
        raise UsageError(f"--workers {config.workers}: at least 1, please")
    if config.clip_timeout < 0:
        raise UsageError(f"--clip_timeout {config.clip_timeout:g}: seconds, or 0 for no limit")
    # what hangs can only be ended from another process
    alone = config.workers == 1 and not config.ray and not config.clip_timeout
    workers = Here(config, folder) if alone else Pool(config, folder)
    try:
        return _run(workers, find_clips(folder, workers.settings.cameras), out, config.redo)
    finally:
        workers.close()


def _run(workers: Here | Pool, clips: list[Clip], out: Path, redo: bool) -> Summary:
    started, frames, done, failed = time.monotonic(), 0, 0, 0
    keys: dict[int, str] = {}
    with Store(out) as store:
        remark = store.open(workers.settings.settings, redo)
        if remark:
            tqdm.write(remark, file=sys.stderr)
        form = "{desc}: {percentage:.0f}% {bar} {n}/{total} videos, {remaining} left{postfix}"
        results = workers.results(clips, store.finished())
        bar = tqdm(results, out.name, len(clips), disable=None, smoothing=0.1, bar_format=form)
        for index, result in bar:
            clip = clips[index]
            if result.reason:
                failed += 1
                see = ""
                if result.preview:
                    see = f" (see {store.add_preview(clip.video_id, result.preview)})"
                words = printable(f"skipped {clip.video_id}: {result.reason}{see}")
                tqdm.write(words, file=sys.stderr)
                store.report(_line(clip, result))
                continue
            keys[index] = result.key
            if not result.example:
                if store.line(clip.video_id).get("key") != result.key:  # killed before
                    store.report(_line(clip, result))
                continue
            store.add(result.key, clip.video_id, result.example, result.preview)
            store.report(_line(clip, result))
            done += 1
            frames += result.frames
            spent = time.monotonic() - started
            bar.set_postfix_str(f"{done / spent:.2g} videos/s, {frames / spent:.3g} frames/s")
        views = max((len(clip.views) for clip in clips if not clip.problem), default=1)
        in_order = [keys[index] for index in sorted(keys)]
        store.finish(in_order, [c.video_id for c in clips], views, workers.settings.slots)
    skipped = len(keys) - done
    return Summary(out, done, skipped, failed, frames, time.monotonic() - started)


def _line(clip: Clip, result: Result) -> dict[str, object]:
    """One line of the manifest."""
    line: dict[str, object] = {
        "video_id": clip.video_id,
        "status": "failed" if result.reason else "ok",
        "files": [view.path.name for view in clip.views],
    }
    if result.reason:
        line["reason"] = result.reason
    return line | result.facts | {"key": result.key}
