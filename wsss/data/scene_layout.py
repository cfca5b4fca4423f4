"""Places bodies in the frame of a generated scene: how many, where, and what hides what.

Like the bodies themselves, a layout is made without knowing any class.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from wsss.data.scene_objects import Body, Drawing, distinct_tones, draw_body, sample_body
from wsss.data.scene_textures import Rng

OBJECTS = (0.20, 0.40, 0.30, 0.10)  # scenes of one, two, three, four objects
STRAY = 0.15  # scenes with a body that has no part
NEAR = 0.5  # further objects tried at the place of an earlier one
VISIBLE_BODY, VISIBLE_PART = 0.6, 0.75
GAP = 4  # pixels between a stray body and any object
ATTEMPTS, POSITIONS, SHRINK = 5, 12, 0.85

Shape = tuple[int, int]
Window = tuple[slice, slice]


@dataclass(frozen=True)
class Placed:
    """A drawing whose patch has its first row and column at ``top`` and ``left``."""

    drawing: Drawing
    top: int
    left: int

    def windows(self, shape: Shape) -> tuple[Window, Window]:
        """The part of an image of ``shape`` that the patch covers, and that part of the patch."""
        spans = []
        for start, length in zip((self.top, self.left), shape, strict=True):
            side = len(self.drawing.alpha)
            first, last = max(0, start), max(0, min(length, start + side))
            spans.append((slice(first, last), slice(first - start, max(first, last) - start)))
        (rows, patch_rows), (columns, patch_columns) = spans
        return (rows, columns), (patch_rows, patch_columns)


@dataclass(frozen=True)
class Layout:
    """What a scene of ``shape`` (H, W) holds before classes are assigned.

    ``objects`` run from back to front; ``stray`` is a body without part; ``tones`` are the
    colours of all bodies.
    """

    shape: Shape
    objects: list[Placed]
    stray: Placed | None
    tones: list[np.ndarray]


def draw_layout(rng: Rng, size: int) -> Layout:
    """Sample a frame whose longer side is ``size`` pixels, and its bodies."""
    short = round(size * rng.uniform(0.7, 1.0))
    shape = (short, size) if rng.uniform() < 0.6 else (size, short)
    count = 1 + int(rng.choice(len(OBJECTS), p=OBJECTS))
    bounds = (0.45, 0.80) if count < 3 else (0.40, 0.62)
    tones = distinct_tones(rng, count + 1)
    objects: list[Placed] = []
    for tone in tones[:count]:
        body = sample_body(rng, tone, size * rng.uniform(*bounds))
        placed = _fit(rng, body, objects, shape)
        if placed is not None:
            objects.append(placed)
    stray = None
    if rng.uniform() < STRAY:
        body = sample_body(rng, tones[count], size * rng.uniform(*bounds))
        stray = _fit_apart(rng, body, objects, shape)
    return Layout(shape, objects, stray, tones if stray is not None else tones[:count])


def _fit(rng: Rng, body: Body, behind: list[Placed], shape: Shape) -> Placed | None:
    """Find a place where enough of every object shows; smaller and smaller, then give up."""
    for attempt in range(ATTEMPTS):
        drawing = draw_body(replace(body, length=body.length * SHRINK**attempt))
        for _ in range(POSITIONS):
            placed = _somewhere(rng, drawing, behind, shape)
            if _all_visible([*behind, placed], shape):
                return placed
    if not behind:
        return _centred(drawing, shape)
    return None


def _fit_apart(rng: Rng, body: Body, objects: list[Placed], shape: Shape) -> Placed | None:
    """Find a place for a body that comes near no object."""
    taken = np.zeros(shape, dtype=bool)
    for placed in objects:
        window, patch = placed.windows(shape)
        taken[window] |= placed.drawing.alpha[patch] > 0
    for _ in range(GAP):
        taken = _grown(taken)
    for attempt in range(ATTEMPTS):
        drawing = draw_body(replace(body, length=body.length * SHRINK**attempt))
        for _ in range(POSITIONS):
            placed = _somewhere(rng, drawing, [], shape)
            window, patch = placed.windows(shape)
            hit = (taken[window] & (drawing.alpha[patch] > 0)).any()
            if not hit and _all_visible([placed], shape):
                return placed
    return None


def _grown(taken: np.ndarray) -> np.ndarray:
    """Grow a (H, W) bool area by a pixel in the four directions."""
    grown = taken.copy()
    grown[1:] |= taken[:-1]
    grown[:-1] |= taken[1:]
    grown[:, 1:] |= taken[:, :-1]
    grown[:, :-1] |= taken[:, 1:]
    return grown


def _somewhere(rng: Rng, drawing: Drawing, behind: list[Placed], shape: Shape) -> Placed:
    """A random place: anywhere in the frame, or at an object that is already there."""
    side = len(drawing.alpha)
    row, column = (rng.uniform(0.1, 0.9) * length for length in shape)
    if behind and rng.uniform() < NEAR:
        other = behind[int(rng.integers(len(behind)))]
        half = len(other.drawing.alpha) / 2
        row = other.top + half + rng.uniform(-0.6, 0.6) * half
        column = other.left + half + rng.uniform(-0.6, 0.6) * half
    return Placed(drawing, int(row - side / 2), int(column - side / 2))


def _centred(drawing: Drawing, shape: Shape) -> Placed:
    side = len(drawing.alpha)
    return Placed(drawing, (shape[0] - side) // 2, (shape[1] - side) // 2)


def _all_visible(placed: list[Placed], shape: Shape) -> bool:
    """Whether enough of each body and of its part is in the frame and not hidden."""
    hidden = np.zeros(shape, dtype=bool)
    for one in reversed(placed):
        window, patch = one.windows(shape)
        body, part = one.drawing.alpha >= 0.5, one.drawing.part >= 0.5
        free = ~hidden[window]
        if (body[patch] & free).sum() < VISIBLE_BODY * body.sum():
            return False
        if (part[patch] & free).sum() < VISIBLE_PART * part.sum():
            return False
        hidden[window] |= body[patch]
    return True
