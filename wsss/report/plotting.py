"""Drawings as inline SVG that take their colours from the page, light or dark.

Matplotlib draws in stand-in colours; :func:`_adopt` replaces them by the page's CSS variables.
Text stays text, ids are made unique by the drawing's name, and nothing in it depends on the
time, the machine or a user's own matplotlibrc.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Stand-ins, which nothing else is drawn in.
INK, MUTED, GRID, PAPER = "#010203", "#010204", "#010205", "#010206"
_SERIES = "#0102{:02x}"
_FIRST_SERIES = 0x40
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", PAPER: "--paper"}

SIZE = (3.7, 2.6)
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a variant may be called $x$
    "font.family": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "hatch.linewidth": 1.2,
    "lines.linewidth": 1.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
}


def series_colour(index: int) -> str:
    """The stand-in of the page's variable ``--sINDEX``."""
    return _SERIES.format(_FIRST_SERIES + index)


def draw(name: str, paint: Callable[[Axes], None], size: tuple[float, float] = SIZE) -> str:
    """Return the SVG of what ``paint`` puts on one pair of axes; ``size`` in inches.

    ``name`` is unique on the page.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        settings: Any = {**_STYLE, "svg.hashsalt": name}
        matplotlib.rcParams.update(settings)
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure.add_subplot())
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    return _adopt(stream.getvalue())


def _adopt(svg: str) -> str:
    """Make Matplotlib's file a part of a page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r"<!--.*?-->\n?", "", svg, flags=re.DOTALL)
    # Names of groups repeat from drawing to drawing; those that are referred to hold a hash.
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg))
    svg = re.sub(
        r' id="([^"]*)"', lambda match: match.group(0) if match.group(1) in used else "", svg
    )
    svg = re.sub(r"(font: [^;\"]*?[\d.]+px) [^;\"]*", r"\1 var(--sans)", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(
        _SERIES.format(0).removesuffix("00") + "([0-9a-f]{2})",
        lambda match: f"var(--s{int(match.group(1), 16) - _FIRST_SERIES})",
        svg,
    )
    return svg.strip()
