"""The report's robustness section: a heat-map and a table of what robustness.json has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from relam_jax.envs.shifts import FACTORS, Shift, why_not
from relam_jax.report.robustness import read_table
from relam_jax.report.tables import markdown

STRONGEST = 60
"""percent of the page's colour in a cell of 100 % success; more would make its words unreadable."""
REACH = 3
"""levels a side of the unchanged scene that the heat-map has room for."""


def robustness_section(path: Path) -> dict[str, Any]:
    """Heat-map and table of each source of keypoints. ValueError if nothing was measured yet."""
    table = read_table(path)
    sources = dict.fromkeys(row["keypoints"] for row in table["rows"])
    if not sources:
        raise ValueError(f"{path} has no rows yet")
    return {"sources": [_source(table, name) for name in sources], "task": table["task"]}


def robustness_markdown(path: Path) -> str:
    """The heat-map in words: success, %, a factor a line, from its farthest level below the
    unchanged scene to the farthest above. ValueError as `robustness_section`."""
    section, parts = robustness_section(path), []
    columns = ["factor", *[""] * REACH, "unchanged", *[""] * REACH]
    for source in section["sources"]:
        lines = [
            [line["name"], *(_words(cell) for cell in line["cells"])]
            for line in source["heat"]
            if not line["why_not"]
        ]
        parts.append(
            f"{section['task']}, {source['keypoints']} keypoints: success within "
            f"{source['env_steps']} env_steps, %, {source['seeds']} seed(s) × "
            f"{source['episodes']} episodes.\n\n{markdown(columns, lines)}"
        )
    return "\n".join(parts)


def _words(cell: dict[str, Any] | None) -> str:
    return f"{cell['label']}: {100 * cell['success']:.0f}" if cell else ""


def _source(table: dict[str, Any], keypoints: str) -> dict[str, Any]:
    rows = [row for row in table["rows"] if row["keypoints"] == keypoints]
    measured = {(row["factor"], row["level"]): row for row in rows}
    unchanged = measured.get(("none", 0.0))
    heat, lines = [], []
    for factor in FACTORS.values():
        reason = why_not(factor.name, keypoints, table["simulator"])
        base = measured.get((factor.name, factor.neutral), unchanged)
        found = [measured.get((factor.name, level)) for level in factor.levels]
        named = {"name": factor.name.replace("_", " "), "words": factor.words, "why_not": reason}
        if not reason and not any(found):
            named["why_not"] = "not measured"
        heat.append(named | {"cells": _cells(measured, factor.name, base)})
        shown = [base, *found] if base is not None and base is not unchanged else found
        lines += [named | {"row": None}] if named["why_not"] else []
        lines += [named | {"row": _line(row, base)} for row in shown if row is not None]
    return {
        "keypoints": keypoints,
        "unchanged": unchanged and _line(unchanged, None),
        "heat": heat,
        "lines": lines,
        "episodes": rows[0]["episodes"],
        "seeds": table["num_seeds"],
        "env_steps": rows[0]["env_steps"],
    }


def _cells(measured: dict[Any, Any], name: str, base: Any) -> list[dict[str, Any] | None]:
    """From the farthest level below the neutral one to the farthest above."""
    factor = FACTORS[name]
    below = [measured.get((name, x)) for x in factor.levels if x < factor.neutral]
    above = [measured.get((name, x)) for x in factor.levels if x > factor.neutral]
    gap = [None] * REACH
    rows = [*gap[len(below) :], *below, base, *above, *gap[len(above) :]]
    return [row and _cell(row) for row in rows]


def _cell(row: dict[str, Any]) -> dict[str, Any]:
    share = row["success"]["mean"]
    label, colour = Shift(row["factor"], row["level"]).label, f"{STRONGEST * share:.0f}%"
    return {"label": label, "success": share, "colour": colour}


def _line(row: dict[str, Any], base: dict[str, Any] | None) -> dict[str, Any]:
    """A line of the table; of the episodes, how many were lost and won against `base`."""
    line = row | {"label": Shift(row["factor"], row["level"]).label, "lost": None, "won": None}
    if base is not None and base is not row:
        pairs = list(zip("".join(base["outcomes"]), "".join(row["outcomes"]), strict=True))
        line |= {"lost": pairs.count(("1", "0")), "won": pairs.count(("0", "1"))}
    return line
