"""Which colour means which class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from wsss.pictures.overlay import class_colour
from wsss.pictures.text import draw_text, text_width

SIZE = 13
_LINE = SIZE + 8
_BOX = SIZE - 1
_GAP = 12


def legend(entries: Sequence[tuple[int, str]], width: int) -> Image.Image:
    """A white strip of ``width`` pixels with a coloured box and a name for each mask id.

    Without entries it says "background only".
    """
    places: list[tuple[int, int]] = []
    x, y = _GAP // 2, 4
    for _, name in entries:
        need = _BOX + 5 + text_width(name, SIZE)
        if x > _GAP // 2 and x + need > width:
            x, y = _GAP // 2, y + _LINE
        places.append((x, y))
        x += need + _GAP
    strip = Image.new("RGB", (width, y + _LINE), "white")
    draw = ImageDraw.Draw(strip)
    for (left, top), (class_id, name) in zip(places, entries, strict=True):
        box = (left, top + 2, left + _BOX, top + 2 + _BOX)
        draw.rectangle(box, fill=class_colour(class_id), outline="black")
        draw_text(strip, (left + _BOX + 5, top), name, SIZE)
    if not entries:
        draw_text(strip, (_GAP // 2, 4), "background only", SIZE, "grey")
    return strip


def with_legend(picture: np.ndarray, entries: Sequence[tuple[int, str]]) -> Image.Image:
    """An (H, W, 3) uint8 picture with its legend below."""
    height, width = picture.shape[:2]
    strip = legend(entries, max(width, 96))
    result = Image.new("RGB", (strip.width, height + strip.height), "white")
    result.paste(Image.fromarray(picture), (0, 0))
    result.paste(strip, (0, height))
    return result
