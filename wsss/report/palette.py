"""One look for each variant, the same in every drawing and legend.

The colours were searched for: every two of them differ for normal sight and for each kind of
colour blindness (Machado et al., IEEE TVCG 2009), and each stands out from its paper. They repeat
after eight, then with another dash and hatch; a number tells variants apart without any colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from wsss.report.plotting import series_colour

LIGHT = (
    *("#2f67ff", "#c47b00", "#2da75f", "#b070b0"),
    *("#433d05", "#4731a4", "#6f073b", "#727e77"),
)
DARK = (
    *("#3d67ed", "#ff9e05", "#33e8ba", "#9d6a9b"),
    *("#ffe086", "#bed1ff", "#c4344e", "#7f8f86"),
)
PAPER = {"light": "#ffffff", "dark": "#14171c"}
_DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = (
    "solid",
    (0, (4, 1.6)),
    (0, (1, 1.2)),
)
_HATCHES = ("", "////", "....")


class Look(NamedTuple):
    """``number`` from 1; ``colour`` a stand-in of the page's variable ``--s{series}``."""

    number: int
    series: int
    colour: str
    dash: str | tuple[int, tuple[float, ...]]
    hatch: str
    round: int


def looks(variants: Sequence[str]) -> dict[str, Look]:
    """The look of each variant, in order."""
    found = {}
    for index, variant in enumerate(variants):
        again, series = divmod(index, len(LIGHT))
        again %= len(_DASHES)
        found[variant] = Look(
            *(index + 1, series, series_colour(series), _DASHES[again], _HATCHES[again], again)
        )
    return found
