"""TensorBoard and CSV, always both; a resumed run goes on where its checkpoint was."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter


class RunLog:
    """Writes `<run>/<name>.csv`, one row a call, and the same numbers as TensorBoard scalars."""

    def __init__(self, run: Path, resume_at: Mapping[str, int] | None = None) -> None:
        """Rows of `<name>.csv` after `resume_at[name]` are dropped; all of those without one."""
        run.mkdir(parents=True, exist_ok=True)
        self.run, kept = run, resume_at or {}
        purged = max(kept.values(), default=0) or None
        self.board = SummaryWriter(str(run / "tensorboard"), purge_step=purged)
        for path in run.glob("*.csv"):
            self._drop_after(path, kept.get(path.stem, -1))

    @staticmethod
    def _drop_after(path: Path, env_steps: int) -> None:
        rows = list(csv.reader(path.open()))
        kept = [r for r in rows[1:] if int(float(r[0])) <= env_steps and len(r) == len(rows[0])]
        partial = path.with_suffix(".tmp")
        with partial.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([rows[0], *kept] if kept else [])
        partial.replace(path)

    def write(self, name: str, env_steps: int, metrics: dict[str, float]) -> None:
        """Append a row to `<name>.csv` and add the scalars under `<name>/`."""
        path = self.run / f"{name}.csv"
        new = not path.exists() or path.stat().st_size == 0
        with path.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                writer.writerow(["env_steps", *metrics])
            writer.writerow([env_steps, *(f"{v:.6g}" for v in metrics.values())])
        for key, value in metrics.items():
            self.board.add_scalar(f"{name}/{key}", value, env_steps)

    def close(self) -> None:
        """Flush."""
        self.board.close()
