"""Go through the videos of one data set: skip what is finished, report what is bad, merge at the
end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from preprocess_torch.config import PreprocessConfig
from preprocess_torch.discover import Clip, find_clips
from preprocess_torch.errors import ClipError, NotFoundError, UsageError, printable
from preprocess_torch.pipeline import Engine, build_engine, clip_key, process_clip
from preprocess_torch.preview import masks_png, preview_png
from preprocess_torch.store import Store
from relam_jax.keypoints.records import encode_record
from relam_jax.keypoints.schema import KeypointRecord

T = TypeVar("T")


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
    engine = build_engine(config, folder)
    clips = find_clips(folder, engine.cameras)
    started, frames, done, skipped, failed = time.monotonic(), 0, 0, 0, 0
    keys = []
    with Store(out) as store:
        remark = store.open(engine.describe(), config.redo)
        if remark:
            tqdm.write(remark, file=sys.stderr)
        form = "{desc}: {percentage:.0f}% {bar} {n}/{total} videos, {remaining} left{postfix}"
        bar = tqdm(clips, desc=out.name, disable=None, smoothing=0.1, bar_format=form)
        for clip in bar:
            key, begun = "", time.monotonic()
            try:
                key = _guarded(clip_key, clip, engine)
                processed = None if store.has(key) else _process(clip, engine, key)
            except ClipError as error:
                failed += 1
                see = ""
                if isinstance(error, NotFoundError):
                    png = masks_png(error.frames, error.masks, engine.segmenter.entities)
                    see = f" (see {store.add_preview(clip.video_id, png)})"
                tqdm.write(printable(f"skipped {clip.video_id}: {error}{see}"), file=sys.stderr)
                store.report(_line(clip, key, status="failed", reason=str(error)))
                continue
            if processed is None:
                keys.append(key)
                skipped += 1
                if store.line(clip.video_id).get("key") != key:  # killed before it was written
                    store.report(_line(clip, key, status="ok"))
                continue
            record, example, preview = processed
            store.add(key, clip.video_id, example, preview)
            seconds = time.monotonic() - begun
            store.report(_line(clip, key, status="ok", record=record, seconds=seconds))
            keys.append(key)
            done += 1
            frames += record.num_frames * record.num_views
            spent = time.monotonic() - started
            bar.set_postfix_str(f"{done / spent:.2g} videos/s, {frames / spent:.3g} frames/s")
        video_ids = [clip.video_id for clip in clips]
        views = max((len(clip.views) for clip in clips if not clip.problem), default=1)
        store.finish(keys, video_ids, views, engine.points * len(engine.segmenter.entities))
    return Summary(out, done, skipped, failed, frames, time.monotonic() - started)


def _process(clip: Clip, engine: Engine, key: str) -> tuple[KeypointRecord, bytes, bytes]:
    """The record of a clip, itself serialised, and the preview as a PNG."""
    if clip.problem:
        raise ClipError(clip.problem)

    def work() -> tuple[KeypointRecord, bytes, bytes]:
        processed = process_clip(clip, engine, key)
        return processed.record, encode_record(processed.record), preview_png(processed)

    return _guarded(work)


def _guarded(function: Callable[..., T], *args: object) -> T:
    """Call a function; whatever goes wrong in it becomes that clip's problem alone."""
    try:
        return function(*args)
    except (ClipError, MemoryError):
        raise
    except Exception as error:
        first_line = (str(error).strip() or "no message").splitlines()[0]
        raise ClipError(f"{type(error).__name__}: {first_line}") from error


def _line(
    clip: Clip,
    key: str,
    *,
    status: str,
    reason: str | None = None,
    record: KeypointRecord | None = None,
    seconds: float | None = None,
) -> dict[str, object]:
    """One line of the manifest."""
    line: dict[str, object] = {
        "video_id": clip.video_id,
        "status": status,
        "files": [view.path.name for view in clip.views],
    }
    if reason:
        line["reason"] = reason
    if record:
        first = record.visibility[:, 0]
        line["frames"] = record.num_frames
        line["points"] = {
            name: [int(first[v, record.entity_id == e].sum()) for v in range(record.num_views)]
            for e, name in enumerate(record.entity_names)
        }
        line["seen"] = round(float(record.visibility.mean(1)[first].mean()), 3)
    if seconds is not None:
        line["seconds"] = round(seconds, 2)
    return line | {"key": key}
