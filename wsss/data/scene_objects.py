"""Bodies of the generated scenes: their shape, their look and the place of their part.

Nothing in this file knows about classes, so nothing it draws can tell them apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wsss.data.scene_textures import Field, Rng, colour, noise

# The part's share of the body's area.
PART_SHARE = (0.045, 0.075)


@dataclass(frozen=True)
class Body:
    """A superellipse along a bent axis with a taper, a waist and fins; lengths in pixels.

    ``head`` is +1 or -1, the end of the axis that carries the part; ``share`` the part's share
    of the area. ``tone`` is RGB in [0, 1], ``centre`` where
    in its pixel the centre lies.
    """

    centre: tuple[float, float]
    angle: float
    length: float
    width: float
    bend: float
    taper: float
    waist: float
    power: float
    fins: tuple[tuple[float, float, float], ...]
    head: int
    share: float
    tone: np.ndarray
    texture: str
    texture_seed: int


@dataclass(frozen=True)
class Drawing:
    """A body rasterised on a square patch of side S that holds all of it.

    ``alpha`` and ``part`` are coverages in [0, 1] and ``shade`` the brightness, all (S, S);
    ``tone`` is the body's colour; ``p`` and ``q`` are the part's own coordinates, in which it is
    about the unit disc.
    """

    alpha: Field
    part: Field
    shade: Field
    p: Field
    q: Field
    tone: np.ndarray


TEXTURES = ("plain", "mottled", "fur", "banded")


def distinct_tones(rng: Rng, count: int) -> list[np.ndarray]:
    """Muted body colours, each the most different one of a few draws from those before it."""
    tones: list[np.ndarray] = []
    for _ in range(count):
        draws = [
            colour(rng.uniform(), rng.uniform(0.08, 0.45), rng.uniform(0.25, 0.95))
            for _ in range(6)
        ]
        tones.append(max(draws, key=lambda tone: tone_gap(tone, tones)))
    return tones


def tone_gap(tone: np.ndarray, others: list[np.ndarray]) -> float:
    """The least distance in RGB to any of the other colours; 1 if there are none."""
    return min((float(np.abs(tone - other).max()) for other in others), default=1.0)


def sample_body(rng: Rng, tone: np.ndarray, length: float) -> Body:
    """A body of a given length and colour, everything else by chance."""
    fins = tuple(
        (float(rng.choice((-1, 1))), rng.uniform(-0.6, 0.6), rng.uniform(0.25, 0.6))
        for _ in range(rng.integers(0, 4))
    )
    return Body(
        centre=(rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5)),
        angle=rng.uniform(0, 2 * np.pi),
        length=length,
        width=length * rng.uniform(0.30, 0.46),
        bend=rng.uniform(-0.22, 0.22),
        taper=rng.uniform(-0.30, 0.30),
        waist=rng.uniform(0.0, 0.30),
        power=rng.uniform(2.2, 4.0),
        fins=fins,
        head=int(rng.choice((-1, 1))),
        share=rng.uniform(*PART_SHARE),
        tone=tone,
        texture=str(rng.choice(TEXTURES)),
        texture_seed=int(rng.integers(2**32)),
    )


def draw_body(body: Body) -> Drawing:
    """Rasterise a body on a patch of its own."""
    u, v = _local(body)
    t = u / np.float32(body.length / 2)
    v = v - np.float32(body.bend * body.length / 2) * (t * t - np.float32(0.33))
    across = v / _half_width(body, t, v)
    depth = across * across + np.abs(np.clip(t, -3, 3)) ** np.float32(body.power)
    alpha = _coverage(depth)
    part, p, q = _part(body, alpha, u, v)
    return Drawing(alpha, part, _shade(body, depth, t, v), p, q, body.tone)


def _local(body: Body) -> tuple[Field, Field]:
    """Pixel coordinates along and across the body's axis, from its centre."""
    side = int(np.ceil(1.5 * body.length)) + 4
    steps = np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2)
    rows, columns = steps[:, None] - body.centre[0], steps[None] - body.centre[1]
    cosine, sine = np.float32(np.cos(body.angle)), np.float32(np.sin(body.angle))
    return cosine * columns + sine * rows, cosine * rows - sine * columns


def _half_width(body: Body, t: Field, v: Field) -> Field:
    """The half width at ``t`` in [-1, 1] along the axis, on the side of ``v``."""
    t = np.clip(t, -1.2, 1.2)
    width = (1 + np.float32(body.taper) * t) * (1 - np.float32(body.waist) * _bump(t, 0, 0.35))
    for side, where, height in body.fins:
        width = width + np.float32(height) * _bump(t, where, 0.12) * (np.sign(v) == side)
    half: Field = width * np.float32(body.width / 2)
    return half


def _bump(t: Field, where: float, width: float) -> Field:
    scaled = (t - np.float32(where)) / np.float32(width)
    bump: Field = np.exp(-scaled * scaled)
    return bump


def _coverage(depth: Field) -> Field:
    """Antialiased coverage of ``depth < 1``: distance to the edge is about value over slope."""
    rows, columns = np.gradient(depth)
    distance = (depth - 1) / np.maximum(np.hypot(rows, columns), np.float32(1e-3))
    coverage: Field = np.clip(np.float32(0.5) - distance, 0, 1)
    return coverage


def _part(body: Body, alpha: Field, u: Field, v: Field) -> tuple[Field, Field, Field]:
    """Coverage of the part: the pixels of the body nearest to a point at its head end."""
    inside = alpha >= 0.5
    count = max(1, round(body.share * int(inside.sum())))
    radius = np.sqrt(count / np.pi)
    tip = body.head * (body.length / 2 - 1.25 * radius)
    p, q = u - np.float32(tip), v
    distance = np.hypot(p, q)
    reach = np.partition(distance[inside], count - 1)[count - 1] if inside.any() else 0.0
    part = np.clip(np.float32(reach + 0.5) - distance, 0, 1) * alpha
    return part, p / np.float32(radius), q / np.float32(radius)


def _shade(body: Body, depth: Field, t: Field, v: Field) -> Field:
    """Brightness: a darker rim, light from above, and the texture."""
    rng = np.random.default_rng(body.texture_seed)
    unit, shape = body.length / 70, (depth.shape[0], depth.shape[1])
    rim = 1 - np.float32(0.30) * np.clip(depth, 0, 1) ** 2
    rows = np.linspace(1, -1, depth.shape[0], dtype=np.float32)[:, None]
    texture: Field = 0.03 * noise(rng, shape, (3 * unit, 3 * unit))
    if body.texture == "mottled":
        texture = 0.16 * noise(rng, shape, (7 * unit, 7 * unit))
    elif body.texture == "fur":
        texture = 0.15 * noise(rng, shape, (1.5 * unit, 3 * unit))
    elif body.texture == "banded":
        texture = np.float32(0.09) * np.sin(np.float32(9) * t + np.float32(0.15 / unit) * v)
    return rim * (1 + texture) + np.float32(0.05) * rows
