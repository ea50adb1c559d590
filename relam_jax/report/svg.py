"""Plots as inline SVG that follows the page's colours, and data as URIs."""

from __future__ import annotations

import base64
import io
import re

from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from relam_jax.report.palette import NUM_SERIES

INK, GRID = "#010101", "#020202"
SIZE = (4.2, 2.5)
"""inches; a panel is shown about so large on a phone, so that its text keeps its size."""


def run_colour(index: int) -> str:
    """Placeholder that `to_svg` turns into the page's colour of a run."""
    return f"#0000a{index % NUM_SERIES}"


def entity_colour(index: int) -> str:
    """Placeholder that `to_svg` turns into the page's colour of an entity."""
    return f"#0000b{index % NUM_SERIES}"


def panel(xlabel: str = "", ylabel: str = "") -> tuple[Figure, Axes]:
    """An empty plot in the page's look."""
    figure = Figure(figsize=SIZE, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02)  # type: ignore[union-attr]
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.tick_params(colors=INK, labelsize=9, length=0, pad=4)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(xlabel, color=INK, fontsize=9)
    axes.set_ylabel(ylabel, color=INK, fontsize=9)
    return figure, axes


def to_svg(figure: Figure, label: str) -> Markup:
    """The figure as an SVG element in the page's colours; `label` is for screen readers."""
    text = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "relam"}):
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'(<g) id="[^"]*"', r"\1", svg)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.S)
    svg = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", svg)
    svg = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", svg)
    svg = re.sub(r"(font: [^;\"]*?px) [^;\"]*", r"\1 system-ui, sans-serif", svg)
    svg = svg.replace(INK, "var(--muted)").replace(GRID, "var(--line)")
    svg = re.sub(r"#0000a(\d)", r"var(--s\1)", svg)
    svg = re.sub(r"#0000b(\d)", r"var(--e\1)", svg)
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1).strip())


def data_uri(kind: str, content: bytes) -> str:
    """`data:image/jpeg;base64,…`."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
