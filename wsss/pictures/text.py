"""Text in pictures, in the font that comes with Pillow."""

from __future__ import annotations

from functools import cache

from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@cache
def font(size: int) -> Font:
    """The built-in font; where Pillow lacks FreeType, its bitmap font of one fixed size."""
    return ImageFont.load_default(size)


@cache
def text_width(text: str, size: int) -> int:
    """Width of a line in pixels."""
    return round(font(size).getlength(text))


def wrap(text: str, width: int, size: int) -> list[str]:
    """Break ``text`` between words into lines no wider than ``width`` pixels where it can."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def draw_text(
    canvas: Image.Image, position: tuple[int, int], text: str, size: int, colour: str = "black"
) -> None:
    """Write one line; ``position`` is its left end and the top of its line."""
    ImageDraw.Draw(canvas).text(position, text, fill=colour, font=font(size))
