"""The first questions to ask of the method, as tables in docs/results.md: are the keypoints good,
are the plans, and does the reward follow the truth? From the JSON of some reports."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from relam_jax.report.quality import shown
from relam_jax.report.tables import markdown

KEYPOINTS = (
    *("demonstrations", "entity", "keypoints a view", "in sight %", "apart across clips %"),
    "off the truth",
)
EPISODES = ("expert", "given up", "random", "reversed")
REWARD = (
    *("demonstrations", "plan error teacher-forced", "free-running", "held-out clips"),
    *EPISODES,
)


def read_reports(folder: Path) -> dict[str, dict[str, Any]]:
    """What the reports in a folder say, by the name of their cell."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def first_tables(folder: Path) -> str:
    """Markdown: one table of the keypoints, one of plans and reward."""
    reports = {_words(name): report for name, report in read_reports(folder).items()}
    keypoints = [
        (name, entity, *shown(quality))
        for name, report in reports.items()
        for entity, quality in report["keypoints"]["quality"].items()
    ]
    reward = [(name, *_reward(report)) for name, report in reports.items()]
    return markdown(KEYPOINTS, keypoints) + "\n" + markdown(REWARD, reward)


def _words(cell: str) -> str:
    """drawer_open-2-truth-relam-keypoints → drawer_open, truth."""
    task, _, tracker, *_ = cell.split("-")
    return f"{task}, {tracker}"


def _reward(report: dict[str, Any]) -> Iterable[str]:
    for kind in ("forced", "free"):
        yield f"{1000 * median(s[kind] for s in report['anticipation']['stages']):.1f}"
    rows = {"held-out clips": report["reward"]["table"][0]}
    rows |= {row["name"]: row for row in report["true_progress"]["table"]}
    for name in ("held-out clips", *EPISODES):
        correlation = rows[name]["correlation"]
        shown = "–" if correlation is None else f"{correlation:+.2f}"
        yield f"{shown} ({rows[name]['last']:.2f})"
