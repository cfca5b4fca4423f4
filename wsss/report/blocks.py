"""What the page is made of; ``page.html.j2`` knows how to draw each kind.

Text is plain: the template escapes it. Only :attr:`Plot.svg` is markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Heading:
    """A line over what follows."""

    text: str
    kind: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Cell:
    """A table cell. ``shade`` in [0, 1] colours it, ``strong`` marks what counts; ``below`` is a
    second line."""

    text: str
    below: str = ""
    strong: bool = False
    shade: float | None = None
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """Headings, then rows whose first cell names them; where ``keyed``, names of variants in
    first cells and headings get their colour and number.

    Cells after the first are numbers where ``numbers``, else text.
    """

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    notes: Sequence[str] = ()
    numbers: bool = True
    keyed: bool = False
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Plot:
    """A drawing with its title and a sentence for those who cannot see it."""

    title: str
    svg: str
    alt: str


@dataclass(frozen=True)
class Plots:
    """Drawings side by side."""

    plots: Sequence[Plot]
    kind: ClassVar[str] = "plots"


@dataclass(frozen=True)
class Legend:
    """The variants that drawings below show, each with its number and colour."""

    variants: Sequence[str]
    kind: ClassVar[str] = "legend"


@dataclass(frozen=True)
class Swatches:
    """Names with their colours, ``#rrggbb`` or ``var(--s0)``: classes of masks, stages."""

    entries: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "swatches"


@dataclass(frozen=True)
class Thumb:
    """A small picture as a data URI; an empty one says that there is none."""

    uri: str
    alt: str
    caption: str
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class Strip:
    """The pictures of one image."""

    heading: str
    note: str
    thumbs: Sequence[Thumb]


@dataclass(frozen=True)
class Gallery:
    """Images, each with its pictures."""

    strips: Sequence[Strip]
    kind: ClassVar[str] = "gallery"


@dataclass(frozen=True)
class Sheet:
    """Many pictures of equal standing."""

    thumbs: Sequence[Thumb]
    kind: ClassVar[str] = "sheet"


@dataclass(frozen=True)
class Code:
    """Text as it is, line by line."""

    text: str
    kind: ClassVar[str] = "code"


@dataclass(frozen=True)
class Fold:
    """Blocks behind a line that opens them."""

    summary: str
    blocks: Sequence[Block]
    open: bool = False
    kind: ClassVar[str] = "fold"


Block = Text | Heading | Table | Plots | Legend | Swatches | Gallery | Sheet | Code | Fold


@dataclass(frozen=True)
class Section:
    """A part of the page; ``anchor`` is its place in the address."""

    anchor: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)
