"""Several pictures of one image side by side, each with its title."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from wsss.pictures.legend import legend
from wsss.pictures.text import draw_text, wrap

SIDE = 300
COLUMNS = 5
_GAP = 8
_HEAD, _TITLE, _FOOT = 18, 13, 12


class Panel(NamedTuple):
    """A title and an (H, W, 3) uint8 picture."""

    title: str
    picture: np.ndarray


def sheet(
    heading: str,
    panels: Sequence[Panel],
    entries: Sequence[tuple[int, str]],
    notes: Sequence[str] = (),
) -> Image.Image:
    """Lay panels out in rows under a heading, a legend of mask ids and notes below.

    Every picture is scaled to the size of the first, whose longer side becomes :data:`SIDE`.
    """
    height, width = panels[0].picture.shape[:2]
    factor = SIDE / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    # Titles of a narrow picture still need room for a few words.
    cell = max(size[0], SIDE * 3 // 5)
    columns = min(COLUMNS, len(panels))
    total = columns * (cell + _GAP) + _GAP
    titles = [wrap(panel.title, cell, _TITLE) for panel in panels]
    rows = [
        range(start, min(start + columns, len(panels))) for start in range(0, len(panels), columns)
    ]
    tops, y = [], _GAP + len(wrap(heading, total - 2 * _GAP, _HEAD)) * (_HEAD + 6)
    for row in rows:
        tops.append(y)
        y += max(len(titles[i]) for i in row) * (_TITLE + 4) + size[1] + _GAP
    strip = legend(entries, total - 2 * _GAP)
    lines = [line for note in notes for line in wrap(note, total - 2 * _GAP, _FOOT)]
    canvas = Image.new("RGB", (total, y + strip.height + len(lines) * (_FOOT + 4) + _GAP), "white")
    for n, line in enumerate(wrap(heading, total - 2 * _GAP, _HEAD)):
        draw_text(canvas, (_GAP, _GAP // 2 + n * (_HEAD + 6)), line, _HEAD)
    for top, row in zip(tops, rows, strict=True):
        depth = max(len(titles[i]) for i in row) * (_TITLE + 4)
        for column, i in enumerate(row):
            x = _GAP + column * (cell + _GAP)
            for n, line in enumerate(titles[i]):
                draw_text(canvas, (x, top + n * (_TITLE + 4)), line, _TITLE)
            canvas.paste(_scaled(panels[i].picture, size), (x, top + depth))
    canvas.paste(strip, (_GAP, y))
    for n, line in enumerate(lines):
        draw_text(canvas, (_GAP, y + strip.height + n * (_FOOT + 4)), line, _FOOT, "dimgrey")
    return canvas


def _scaled(picture: np.ndarray, size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR)
