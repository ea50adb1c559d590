"""One self-contained HTML page about one or more runs.

    python experiments/report.py runs/a runs/b --out report.html

Keypoints, anticipation, reward and timing are about the first run, tables and curves about all.
Runs may be unfinished: what is missing is said in its section. The numbers of the tables about
demonstrations, model and reward are written as JSON beside the page.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from relam_jax import cli


@dataclass(frozen=True)
class Args:
    """Arguments of the command line."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders of experiments/train.py, the one that the page is about first."""
    out: Path | None = None
    """The page (default: report.html in the first run's folder)."""


def main() -> None:
    """Command line."""
    args = tyro.cli(Args, description=__doc__)
    if not args.runs:
        raise ValueError("name at least one run folder: python experiments/report.py runs/x")
    from relam_jax.report.build import write_report

    out = args.out or args.runs[0] / "report.html"
    for sentence in dict.fromkeys(write_report(args.runs, out)):
        print(f"left out: {sentence}")
    print(f"{out} ({out.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    cli.run(main)
