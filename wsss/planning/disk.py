"""How large artifacts will be.

Maps are stored as they are, so their size follows from grids, classes and tags alone. Label maps
are PNGs; how well those compress is measured: :data:`SEEDS`, :data:`REFINED` and :data:`MASKS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

from wsss.config import Config
from wsss.planning.dataset import DataFacts, Group

HALF = 2  # bytes of a float16
# Beside each image's maps: the .npy header, two zip headers with names, a line of the index.
ENTRY, NAME, INDEX = 128 + 30 + 46, 2 * 15, 110
# A label map's outlines grow with its sides, not its area: bytes a pixel of the square root of
# its size, measured on VOC-animals (1000 CRF seeds; 2 sets of 1000 refined pseudo masks; 12 sets of
# 245 predictions).
SEEDS, REFINED, MASKS = 9.7, 5.3, 6.6
# A row of a manifest.
ROW = 100
IRNET_STRIDE, AFFINITY_STRIDE = 4, 8


def maps(group: Group, channels: float, stride: int) -> float:
    """Bytes of an array store: float16 at ``stride`` (Mean cells are those of the mean size)."""
    cells = group.pixels / stride**2
    return group.images * (channels * cells * HALF + ENTRY + NAME + INDEX)


def label_maps(group: Group, bytes_a_side: float) -> float:
    """Bytes of a mask store."""
    return group.images * (bytes_a_side * math.sqrt(group.pixels) + ENTRY - 128 + NAME + INDEX)


def size_of(output: str, config: Config, facts: DataFacts) -> float | None:
    """Return the bytes of an artifact of a variant over all shards.

    None for what is not known before a network is built (weights), 0 for tables and text.

    Args:
        output: path of the file, ``.../FOLDER/NAME`` or ``.../FOLDER/shards/NAME.0of2.zip``.
    """
    path = PurePosixPath(output)
    folder = path.parent.parent if path.parent.name == "shards" else path.parent
    name = path.name.partition(".")[0]
    if path.suffix == ".safetensors":
        return None
    found = _SIZES.get((folder.name, name))
    return found(config, facts) if found and path.suffix in (".zip", ".csv") else 0.0


def _walk(config: Config, facts: DataFacts) -> float:
    group = facts.groups["walked"]
    stride = IRNET_STRIDE if config.refine.method == "irnet" else AFFINITY_STRIDE
    return maps(group, group.tags + (config.walk.background == "alpha"), stride)


def _scores(config: Config, facts: DataFacts) -> float:
    """At most: classes that reach 0.001 nowhere in an image are not stored."""
    return maps(facts.groups["predicted"], facts.classes + 1, config.predict.stride)


def _soft(config: Config, facts: DataFacts) -> float:
    group = facts.groups["seeded"]
    return maps(group, group.tags + 1, config.segment.label_stride)


def _pseudo(config: Config, facts: DataFacts) -> float:
    """Without refinement they are the CRF seeds."""
    return label_maps(facts.groups["seeded"], SEEDS if config.refine.method == "none" else REFINED)


def _masks(group: str, bytes_a_side: float) -> Callable[[Config, DataFacts], float]:
    return lambda _config, facts: label_maps(facts.groups[group], bytes_a_side)


_SIZES: Mapping[tuple[str, str], Callable[[Config, DataFacts], float]] = {
    ("data", "manifest"): lambda _c, facts: facts.groups["all"].images * ROW,
    ("data", "masks"): _masks("all", SEEDS),
    ("cam", "maps"): lambda config, facts: maps(
        facts.groups["walked"], facts.groups["walked"].tags, config.cam.stride
    ),
    ("seeds", "low"): _masks("seeded", SEEDS),
    ("seeds", "high"): _masks("seeded", SEEDS),
    ("seeds", "confident"): _masks("seeded", SEEDS),
    ("seeds", "crf"): _masks("seeded", SEEDS),
    ("irnet", "edges"): lambda _c, facts: maps(facts.groups["walked"], 1, IRNET_STRIDE),
    ("walk", "scores"): _walk,
    ("pseudo", "masks"): _pseudo,
    ("pseudo", "scores"): _soft,
    ("predict", "scores"): _scores,
    ("predict", "single"): _masks("predicted", MASKS),
    ("predict", "masks"): _masks("predicted", MASKS),
}
