"""The tables in README.md and docs/results.md, from the files in results/.

make tables    # rewrites them between their marks
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from relam_jax.keypoints.tfrecord import write_atomic
from relam_jax.report.cells import default_keypoints, read_results, reward_name
from relam_jax.report.comparison import comparison_table
from relam_jax.report.first import first_tables
from relam_jax.report.reproduction import evaluated, reached_at, thousands
from relam_jax.report.tables import markdown, percent

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = (
    *("task", "observation", "demonstrations", "seeds × episodes", "env_steps"),
    "success % [95 % CI]",
    "95 % first reached after (seeds)",
)
PAGES = {"README.md": ("success", "rewards", "speed"), "results.md": ("first",)}
"""Names of the tables in each."""
TRACKERS = {"truth": "true tracks", "lucas_kanade": "Lucas-Kanade"}


def success_table(results: Iterable[dict[str, Any]]) -> str:
    """Markdown: a row a task, observation and tracker, of the keypoints that are the default."""
    return markdown(
        COLUMNS, [_row(r) for r in results if reward_name(r) == "relam" and default_keypoints(r)]
    )


def _row(result: dict[str, Any]) -> tuple[str, ...]:
    return (
        result["task"],
        result["observation"].replace("+", " + "),
        TRACKERS[result["tracker"]],
        evaluated(result),
        thousands(result["env_steps"]),
        percent(result["success_any"]),
        reached_at(result, 95, "env_steps"),
    )


def speed_table(rows: Iterable[dict[str, Any]]) -> str:
    """Markdown, of the rows of `make bench`."""
    lines = ["| a CPU-second of one core | | | % of the limit | |", "|---|---:|---|---:|---|"]
    for row in rows:
        value = "–" if row["value"] is None else f"{row['value']:,.1f}"
        percent = "" if row["percent"] is None else f"{row['percent']:.0f} %"
        lines.append(f"| {row['name']} | {value} | {row['unit']} | {percent} | {row['note']} |")
    return "\n".join(lines) + "\n"


def tables(results: Path) -> dict[str, str]:
    """All tables by the names of their marks."""
    found = [*read_results(results / "metaworld"), *read_results(results / "maniskill")]
    return {
        "success": success_table(found),
        "rewards": comparison_table(found),
        "speed": speed_table(json.loads((results / "bench.json").read_text())["rows"]),
        "first": first_tables(results / "first"),
    }


def with_tables(path: Path, found: Mapping[str, str]) -> str:
    """A page with today's tables between `<!-- name -->` and `<!-- end -->`.

    Raises:
        ValueError: it has no such marks.
    """
    text = path.read_text()
    for name in PAGES[path.name]:
        block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.S)
        if not block.search(text):
            raise ValueError(f"{path} has no block `<!-- {name} -->` … `<!-- end -->`")
        text = block.sub(lambda m, t=found[name]: m[1] + t + m[2], text)
    return text


if __name__ == "__main__":
    for page in (ROOT / "README.md", ROOT / "docs/results.md"):
        write_atomic(page, with_tables(page, tables(ROOT / "results")).encode())
