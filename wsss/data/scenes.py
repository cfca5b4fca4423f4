"""Generated scenes: the embedded data set, which shows the problem of the field in small.

Each image holds one to four objects on a textured ground. An object is a body with a part at
one end. The class is in the part alone, a patch of 4.5 to 7.5 % of the body with a pattern and
two colours of its own. Shape, size, colour and texture of the body are drawn before classes are
assigned and cannot depend on them; yet body and part together are the class in the mask. A
classifier therefore looks at the part, and a plain CAM misses most of the body. What the body
does have is continuity: its colour differs from the ground and its neighbours, so that a seed on
the part can be grown over it by CRF or affinity.

Also as in photos: several classes in an image, objects of different scale that hide each other
or leave the frame (part and most of the body stay visible, so no tag lacks its evidence), and
context that deceives: ``rings`` lies on water 80 % of the time, other images rarely show water.
One image in seven holds a body without part, which is background: bodies are no evidence of an
object. Such a body never touches an object, because similarity of neighbours would otherwise
speak against the mask. Pixels that an object's edge shares with something else are 255.

The scenes were fixed before any method was run on them and are never tuned towards one.

``scenes.zip`` holds images/, masks/ and parts/ (0, or k on the part of class k; for analysis
only). The same seed and size give the same bytes; every image depends on the seed, its split and
its number alone.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from wsss.artifacts import ZIP_EPOCH, json_bytes, voc_palette
from wsss.atomic import atomic_path
from wsss.data.images import MEMBER, FileError, exists, read_bytes
from wsss.data.manifest import Item, Manifest
from wsss.data.scan import Findings, Scan, check_roles, lists_of_roles, memberships, named_roles
from wsss.data.scene_layout import Layout, Placed, draw_layout
from wsss.data.scene_objects import tone_gap
from wsss.data.scene_textures import BACKGROUNDS, PATTERNS, Background, Pattern, Rng, noise
from wsss.labels import IGNORE

if TYPE_CHECKING:
    from wsss.config.schema import Data, Scenes

ARCHIVE = "scenes.zip"
INDEX = "scenes.json"
SPLITS = ("train", "tune", "val")
CLASSES = tuple(pattern.name for pattern in PATTERNS)
CONTEXT_CLASS, CONTEXT_GROUND = "rings", "water"
CONTEXT_RATE, CONTEXT_ELSEWHERE = 0.8, 0.08
SAME_CLASS = 0.2  # a further object repeats the first one's class
_PALETTE = voc_palette()


@dataclass(frozen=True)
class Scene:
    """One generated image.

    ``image`` (H, W, 3) uint8 RGB; ``mask`` (H, W) uint8, 0..C and 255; ``part`` (H, W) uint8,
    0..C; ``labels`` class names in class order; ``ground`` the background's name.
    """

    image: np.ndarray
    mask: np.ndarray
    part: np.ndarray
    labels: tuple[str, ...]
    ground: str


def draw_scene(seed: int, split: str, index: int, size: int) -> Scene:
    """Generate one image; ``size`` is its longer side in pixels.

    Layout, classes and ground have random streams of their own, so the first does not depend on
    the others.
    """
    streams = [np.random.default_rng([seed, SPLITS.index(split), index, k]) for k in range(4)]
    layout = draw_layout(streams[0], size)
    classes = _assign(streams[1], len(layout.objects))
    ground = _ground(streams[2], {CLASSES[c] for c in classes})
    canvas = _draw_ground(streams[2], ground, layout, size)
    if layout.stray is not None:
        _paint(canvas, layout.stray, None, streams[3])
    mask = np.zeros(layout.shape, dtype=np.uint8)
    part = np.zeros(layout.shape, dtype=np.uint8)
    for placed, index_of_class in zip(layout.objects, classes, strict=True):
        _paint(canvas, placed, PATTERNS[index_of_class], streams[3])
        _mark(mask, part, placed, index_of_class + 1)
    part[mask != part] = 0
    return Scene(
        image=_finish(canvas, streams[3]),
        mask=mask,
        part=part,
        labels=tuple(CLASSES[c] for c in sorted(set(classes))),
        ground=ground.name,
    )


def _assign(rng: Rng, count: int) -> list[int]:
    """A class for each object: different ones, or now and then the first one's again."""
    classes = [int(c) for c in rng.permutation(len(CLASSES))[:count]]
    return [classes[0] if k and rng.uniform() < SAME_CLASS else c for k, c in enumerate(classes)]


def _ground(rng: Rng, labels: set[str]) -> Background:
    """The background, which one class has in common with most of its images."""
    rate = CONTEXT_RATE if CONTEXT_CLASS in labels else CONTEXT_ELSEWHERE
    wanted = rng.uniform() < rate
    choices = [b for b in BACKGROUNDS if (b.name == CONTEXT_GROUND) == wanted]
    return choices[int(rng.integers(len(choices)))]


def _draw_ground(rng: Rng, ground: Background, layout: Layout, size: int) -> np.ndarray:
    """(H, W, 3) float32 ground in a tone of its kind that is unlike the bodies on it."""
    tone = max((ground.tone(rng) for _ in range(12)), key=lambda t: tone_gap(t, layout.tones))
    relief = ground.relief(rng, layout.shape, size / 144)
    canvas: np.ndarray = tone * (1 + np.float32(ground.contrast) * relief)[:, :, None]
    return canvas.astype(np.float32)


def _paint(canvas: np.ndarray, placed: Placed, pattern: Pattern | None, rng: Rng) -> None:
    """Lay a body over the canvas, with a class's pattern on its part or without a part."""
    window, patch = placed.windows((canvas.shape[0], canvas.shape[1]))
    drawing = placed.drawing
    shade = drawing.shade[patch][:, :, None]
    colour = drawing.tone * shade
    if pattern is not None:
        bright, dark = (np.array(c, np.float32) for c in (pattern.bright, pattern.dark))
        inside = pattern.inside(drawing.p[patch], drawing.q[patch])[:, :, None]
        badge = np.where(inside, bright, dark) * np.sqrt(shade) * np.float32(rng.uniform(0.85, 1))
        coverage = drawing.part[patch][:, :, None]
        colour = colour + (badge - colour) * coverage
    alpha = drawing.alpha[patch][:, :, None]
    canvas[window] += (colour - canvas[window]) * alpha


def _mark(mask: np.ndarray, part: np.ndarray, placed: Placed, value: int) -> None:
    """Write an object into the mask; pixels that it shares with what is behind it are 255."""
    window, patch = placed.windows((mask.shape[0], mask.shape[1]))
    alpha = placed.drawing.alpha[patch]
    mask[window][alpha >= 0.5] = value
    mask[window][(alpha > 0.2) & (alpha < 0.8)] = IGNORE
    part[window][alpha >= 0.5] = 0
    part[window][(placed.drawing.part[patch] >= 0.5) & (alpha >= 0.5)] = value


def _finish(canvas: np.ndarray, rng: Rng) -> np.ndarray:
    """Uneven light and sensor noise; (H, W, 3) uint8."""
    height, width = canvas.shape[:2]
    light = 1 + np.float32(0.08) * noise(rng, (height, width), (height, width))
    grain = rng.normal(0, 0.012, canvas.shape).astype(np.float32)
    levels = (canvas * light[:, :, None] + grain) * 255 + np.float32(0.5)
    image: np.ndarray = np.clip(levels, 0, 255).astype(np.uint8)
    return image


# --- the archive -------------------------------------------------------------------------------


def build(cfg: Data, data_dir: Path, _processes: int = 1) -> Manifest:
    """Generate ``scenes.zip`` into ``data_dir``; the manifest is not yet saved."""
    result = scan(cfg, None)
    if not result.findings.problems():
        write_archive(cfg.scenes, Path(data_dir) / ARCHIVE)
        result = scan(cfg, data_dir)
    return result.manifest()


def scan(cfg: Data, data_dir: Path | None = None) -> Scan:
    """The scenes made before in ``data_dir``; of ones not yet made, only the configuration."""
    findings = Findings()
    root = Path(data_dir or "")
    wanted = lists_of_roles(cfg.splits)
    for role, names in wanted.items():
        for name in sorted(set(names).difference(SPLITS)):
            findings.add("list-missing", f"{role}: {name} (scenes have {', '.join(SPLITS)})")
    if cfg.classes is not None and tuple(cfg.classes) != CLASSES:
        findings.add("class-unknown", f"scenes have {', '.join(CLASSES)}: set data.classes to null")
    made = data_dir is not None and (root / ARCHIVE).is_file()
    lists = {split: list(_names(cfg.scenes, split)) for split in SPLITS} if made else {}
    result = Scan(
        source="scenes",
        root=root,
        classes=CLASSES,
        mask_values=tuple(range(1, len(CLASSES) + 1)),
        background_values=(),
        roles=named_roles(wanted),
        items=tuple(_items(root, memberships(lists, wanted), findings)) if made else (),
        findings=findings,
    )
    missing = [role for role, names in wanted.items() if any(n not in lists for n in names)]
    check_roles(result, missing, subset=False)
    return result


def _names(cfg: Scenes, split: str) -> Iterator[str]:
    for index in range(getattr(cfg, split)):
        yield f"{split}_{index:05d}"


def _items(root: Path, members: dict[str, tuple[str, ...]], findings: Findings) -> Iterator[Item]:
    try:
        index = json.loads(read_bytes(root, ARCHIVE + MEMBER + INDEX))
    except (FileError, ValueError) as error:
        findings.add("image-unreadable", f"{ARCHIVE}: {error}")
        return
    for identifier in sorted(members):
        image, mask = (
            f"{ARCHIVE}{MEMBER}{folder}/{identifier}.png" for folder in ("images", "masks")
        )
        if not exists(root, image) or identifier not in index:
            findings.add("image-missing", image)
            continue
        yield Item(identifier, image, mask, tuple(index[identifier]["labels"]), members[identifier])


def write_archive(cfg: Scenes, path: Path) -> None:
    """Write all scenes of a configuration; the same one gives the same bytes."""
    index: dict[str, Any] = {}
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for split in SPLITS:
            for number, identifier in enumerate(_names(cfg, split)):
                scene = draw_scene(cfg.seed, split, number, cfg.size)
                index[identifier] = {"labels": scene.labels, "ground": scene.ground}
                _store(archive, f"images/{identifier}.png", _png(scene.image))
                _store(archive, f"masks/{identifier}.png", _png(scene.mask))
                _store(archive, f"parts/{identifier}.png", _png(scene.part))
        _store(archive, INDEX, json_bytes(index))


def _store(archive: zipfile.ZipFile, member: str, payload: bytes) -> None:
    info = zipfile.ZipInfo(member, ZIP_EPOCH)
    info.create_system = 3
    info.external_attr = 0o644 << 16
    archive.writestr(info, payload, zipfile.ZIP_STORED)


def _png(pixels: np.ndarray) -> bytes:
    picture = Image.fromarray(pixels)
    if pixels.ndim == 2:
        picture.putpalette(_PALETTE)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
