"""Textures of the generated scenes: noise, backgrounds, and the patterns that tell the classes.

Fields are (H, W) float32. Nothing here reads a file or knows what an object is.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]
Rng = np.random.Generator


@lru_cache(maxsize=256)
def _steps(length: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each of ``length`` pixels lies on a grid of cells: cell, smooth position in it."""
    position = (np.arange(length, dtype=np.float32) + np.float32(0.5)) * np.float32(cells / length)
    cell = np.minimum(position.astype(np.int64), cells - 1)
    step = position - cell.astype(np.float32)
    return cell, step * step * (3 - 2 * step)


def noise(rng: Rng, shape: tuple[int, int], cell: tuple[float, float]) -> Field:
    """Smooth value noise in [-1, 1] with cells of about (height, width) pixels."""
    rows, columns = (max(1, round(n / max(c, 1))) for n, c in zip(shape, cell, strict=True))
    grid = rng.uniform(-1, 1, (rows + 1, columns + 1)).astype(np.float32)
    for axis, cells in enumerate((rows, columns)):
        index, step = _steps(shape[axis], cells)
        weight = step[:, None] if axis == 0 else step
        first, second = grid.take(index, axis), grid.take(index + 1, axis)
        grid = first + (second - first) * weight
    return grid


def colour(hue: float, saturation: float, value: float) -> np.ndarray:
    """RGB in [0, 1] as (3,) float32."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), dtype=np.float32)


# --- backgrounds -------------------------------------------------------------------------------


def _meadow(rng: Rng, shape: tuple[int, int], unit: float) -> Field:
    blades = noise(rng, shape, (5 * unit, 1.4 * unit))
    tufts = noise(rng, shape, (18 * unit, 18 * unit))
    field: Field = 0.75 * blades + 0.6 * tufts
    return field


def _water(rng: Rng, shape: tuple[int, int], unit: float) -> Field:
    rows = np.arange(shape[0], dtype=np.float32)[:, None] / np.float32(unit)
    swell = noise(rng, shape, (14 * unit, 30 * unit))
    waves = np.sin(rows * np.float32(0.8) + 4 * swell)
    field: Field = 0.7 * waves + 0.5 * noise(rng, shape, (3 * unit, 12 * unit))
    return field


def _sand(rng: Rng, shape: tuple[int, int], unit: float) -> Field:
    grains = rng.uniform(-1, 1, shape).astype(np.float32)
    return 0.5 * grains + 0.9 * noise(rng, shape, (26 * unit, 40 * unit))


def _bricks(rng: Rng, shape: tuple[int, int], unit: float) -> Field:
    height, width = 9 * unit, 20 * unit
    rows = ((np.arange(shape[0]) + rng.uniform(0, height)) / height)[:, None]
    course = np.floor(rows).astype(np.int64)
    columns = (np.arange(shape[1]) + rng.uniform(0, width))[None] / width + 0.5 * (course % 2)
    brick = np.floor(columns).astype(np.int64)
    mortar = (rows % 1 < 0.16) | (columns % 1 < 0.08)
    tones = rng.uniform(-0.6, 0.6, (course.max() + 1, brick.max() + 1))
    field: Field = np.where(mortar, -1.3, tones[course, brick]).astype(np.float32)
    return field + 0.3 * noise(rng, shape, (2 * unit, 2 * unit))


def _stone(rng: Rng, shape: tuple[int, int], unit: float) -> Field:
    cracks = np.abs(noise(rng, shape, (8 * unit, 11 * unit)))
    grain = noise(rng, shape, (1.5 * unit, 1.5 * unit))
    patches = noise(rng, shape, (20 * unit, 20 * unit))
    lines = np.where(cracks < 0.07, np.float32(-1.2), np.float32(0))
    field: Field = lines + 0.4 * cracks + 0.25 * grain + 0.5 * patches
    return field


@dataclass(frozen=True)
class Background:
    """A kind of ground: the range of its base colour (HSV) and its relief."""

    name: str
    hue: tuple[float, float]
    saturation: tuple[float, float]
    value: tuple[float, float]
    contrast: float
    relief: Callable[[Rng, tuple[int, int], float], Field]

    def tone(self, rng: Rng) -> np.ndarray:
        """A base colour of this kind, (3,) float32."""
        ranges = (self.hue, self.saturation, self.value)
        hue, saturation, value = (rng.uniform(*bounds) for bounds in ranges)
        return colour(hue, saturation, value)


BACKGROUNDS = (
    Background("meadow", (0.18, 0.33), (0.30, 0.60), (0.28, 0.75), 0.20, _meadow),
    Background("water", (0.50, 0.62), (0.30, 0.60), (0.35, 0.85), 0.16, _water),
    Background("sand", (0.08, 0.14), (0.20, 0.45), (0.50, 0.95), 0.13, _sand),
    Background("bricks", (-0.03, 0.06), (0.25, 0.50), (0.35, 0.75), 0.20, _bricks),
    Background("stone", (0.55, 0.85), (0.05, 0.20), (0.30, 0.80), 0.22, _stone),
)


# --- the patterns of the parts -----------------------------------------------------------------
# Each maps coordinates (p, q), in which the part is about the unit disc, to its bright half.


def _stripes(p: Field, _q: Field) -> Mask:
    inside: Mask = np.sin(5.5 * p) > 0
    return inside


def _checks(p: Field, q: Field) -> Mask:
    inside: Mask = np.sin(4.5 * p) * np.sin(4.5 * q) > 0
    return inside


def _dots(p: Field, q: Field) -> Mask:
    inside: Mask = np.cos(6.0 * p) + np.cos(6.0 * q) < 0.1
    return inside


def _rings(p: Field, q: Field) -> Mask:
    inside: Mask = np.cos(8.0 * np.hypot(p, q)) > 0
    return inside


def _cross(p: Field, q: Field) -> Mask:
    inside: Mask = np.minimum(np.abs(p), np.abs(q)) < 0.28
    return inside


def _wheel(p: Field, q: Field) -> Mask:
    inside: Mask = np.sin(3 * np.arctan2(q, p)) > 0
    return inside


@dataclass(frozen=True)
class Pattern:
    """What makes a class: a name, a bright and a dark colour (RGB in [0, 1]), a pattern."""

    name: str
    bright: tuple[float, float, float]
    dark: tuple[float, float, float]
    inside: Callable[[Field, Field], Mask]


PATTERNS = (
    Pattern("stripes", (0.97, 0.93, 0.90), (0.85, 0.08, 0.12), _stripes),
    Pattern("checks", (0.98, 0.85, 0.10), (0.10, 0.15, 0.75), _checks),
    Pattern("dots", (0.10, 0.85, 0.30), (0.05, 0.10, 0.08), _dots),
    Pattern("rings", (0.98, 0.85, 0.97), (0.80, 0.08, 0.70), _rings),
    Pattern("cross", (1.00, 0.52, 0.05), (0.16, 0.08, 0.30), _cross),
    Pattern("wheel", (0.05, 0.85, 0.90), (0.95, 0.97, 0.98), _wheel),
)
