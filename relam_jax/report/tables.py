"""Tables in Markdown, and intervals in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ("---",) * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def percent(interval: dict[str, float] | None) -> str:
    """Mean and interval, %."""
    if interval is None:
        return "–"
    mean, low, high = (100 * interval[name] for name in ("mean", "low", "high"))
    return f"{mean:.0f} [{low:.0f}, {high:.0f}]"
