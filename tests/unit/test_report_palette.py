"""Colours that can be told apart, by everybody, on light and dark paper."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from tests.conftest import ROOT
from wsss.report.palette import DARK, LIGHT, PAPER, looks

# Machado, Oliveira & Fernandes 2009, Table 1, severity 1.
SIGHT = {
    "normal": np.eye(3),
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
# CIE 1976 distance; around 2 is just visible side by side.
DISTINCT = 19


def linear(colour: str) -> np.ndarray:
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(light: np.ndarray) -> np.ndarray:
    ratio = XYZ @ np.clip(light, 0, 1) / (XYZ @ np.ones(3))
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one: str, two: str) -> float:
    """WCAG 2 contrast ratio."""
    low, high = sorted(float(XYZ[1] @ linear(colour)) for colour in (one, two))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_any_two_colours_differ(colours: tuple[str, ...], sight: str) -> None:
    matrix = np.asarray(SIGHT[sight])
    seen = {colour: lab(matrix @ linear(colour)) for colour in colours}
    for one, two in combinations(colours, 2):
        assert np.linalg.norm(seen[one] - seen[two]) > DISTINCT, (one, two)


@pytest.mark.parametrize(("colours", "paper"), [(LIGHT, "light"), (DARK, "dark")])
def test_colours_stand_out_from_their_paper(colours: tuple[str, ...], paper: str) -> None:
    """WCAG 2.1, 1.4.11: graphics need a contrast of 3."""
    assert min(contrast(colour, PAPER[paper]) for colour in colours) >= 3


def test_text_can_be_read_on_its_paper() -> None:
    """WCAG 2.1, 1.4.3: text needs a contrast of 4.5."""
    style = (ROOT / "wsss" / "report" / "page.css").read_text()
    parts = style.split("@media (prefers-color-scheme: dark)")
    for name, part in zip(("light", "dark"), parts, strict=True):
        values = dict(
            pair.strip().removeprefix("--").split(": ")
            for pair in part.split("}")[0].split("{")[-1].split(";")
            if pair.strip().startswith("--") and "#" in pair
        )
        assert values["paper"] == PAPER[name]
        for text in ("ink", "muted", "link"):
            for ground in ("paper", "panel"):
                assert contrast(values[text], values[ground]) >= 4.5, (name, text, ground)


def test_variants_keep_their_look_and_differ() -> None:
    names = [f"v{n}" for n in range(20)]
    found = looks(names)
    assert [found[name].number for name in names] == list(range(1, 21))
    assert len({(look.series, str(look.dash), look.hatch) for look in found.values()}) == 20
    assert looks(names[:3]) == {name: found[name] for name in names[:3]}
