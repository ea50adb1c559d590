"""What all pages share: the templates' environment, words for numbers, missing sections."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2


def environment() -> jinja2.Environment:
    """The templates of this folder."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters["percent"] = percent
    made.filters["thousands"] = lambda x: f"{x:,.0f}".replace(",", "\u202f")
    return made


def section(make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The section, or the sentence that says what is missing for it."""
    try:
        return make() | {"missing": ""}
    except (ValueError, OSError) as error:
        return {"missing": str(error)}


def percent(share: float | int) -> str:
    """`93 %`."""
    return f"{100 * share:.0f}\u202f%"
