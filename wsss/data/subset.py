"""Makes a smaller data set in the same layout: of some classes, lists and a longest side.

Of every list the images that show one of the classes (and have a mask) are kept, smaller, with
their masks and annotations; ids of images and classes stay. Further lists are made from these by
rules that give the same ids everywhere: a sample takes the images whose ids have the smallest
SHA-256, a difference leaves one list out of another. VOC's and COCO's layout are known.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wsss.data import coco_json
from wsss.data.lists import read_list
from wsss.data.scan import Findings
from wsss.errors import UserError
from wsss.parallel import ordered_map

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.+-]*"
_SAMPLE = re.compile(rf"({_NAME})=({_NAME}):(\d+)(?::containing=({_NAME}))?")

Lists = dict[str, list[str]]


@dataclass(frozen=True)
class Size:
    """How images are made smaller: longest side in pixels, and JPEG quality."""

    side: int
    quality: int


@dataclass(frozen=True)
class Choice:
    """Which images: those of ``lists`` that show one of ``classes`` (None: any of the data set's),
    at most ``limit`` a list.

    ``samples`` and ``differences`` are written as on the command line, ``lists_from`` is a folder
    whose text files come before the source's lists of the same name.
    """

    classes: tuple[str, ...] | None
    lists: tuple[str, ...]
    limit: int | None = None
    lists_from: Path | None = None
    samples: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()


class Layout(Protocol):
    """A data set to take images from."""

    classes: tuple[str, ...]

    def ids(self, name: str) -> list[str]:
        """The images of a list; UserError if there is none."""

    def resolve(self, line: str) -> str:
        """The id of an image that a line of a text list names."""

    def shows(self, identifier: str, classes: set[str]) -> bool:
        """Whether an image shows one of the classes and has a mask; UserError if it is unknown."""

    def writer(self, out: Path, size: Size) -> Callable[[str], object]:
        """What writes one image and its mask; it can be handed to another process."""

    def finish(self, out: Path, lists: Lists, size: Size) -> None:
        """Write lists, and what describes all images at once."""


def make_subset(
    source: Path, out: Path, choice: Choice, size: Size, processes: int
) -> dict[str, int]:
    """Write the chosen part of ``source`` to ``out``; returns the number of images of each list.

    Lists are written last: a folder without them was interrupted, and the same call completes it.
    Raises UserError.
    """
    layout = _layout(source)
    _check_out(source, out)
    lists = choose(layout, choice)
    everything = sorted({identifier for ids in lists.values() for identifier in ids})
    write = layout.writer(out, size)
    for _ in ordered_map(write, ((i, i) for i in everything), processes):
        pass
    layout.finish(out, lists, size)
    return {name: len(ids) for name, ids in lists.items()}


def make_lists(source: Path, out: Path, choice: Choice) -> dict[str, int]:
    """Write the lists alone, as ``out/NAME.txt``; returns the number of images of each.

    Only lists that ``choice`` makes anew are written. Raises UserError, also if one is there.
    """
    lists = choose(_layout(source), choice)
    new = {name: ids for name, ids in lists.items() if name not in choice.lists}
    if not new:
        raise UserError("--lists-only: name a new list with --sample or --difference")
    for name in new:
        if (out / f"{name}.txt").exists():
            raise UserError(f"{out / name}.txt is there already: give the list another name")
    write_lists(out, new)
    return {name: len(ids) for name, ids in new.items()}


def _layout(source: Path) -> Layout:
    from wsss.data.subset_coco import CocoLayout
    from wsss.data.subset_voc import VocLayout
    from wsss.data.voc import LISTS

    if (source / LISTS).is_dir():
        return VocLayout(source)
    if coco_json.names(source):
        return CocoLayout(source)
    raise UserError(
        f"--source-root {source} has neither {LISTS} (VOC) nor annotations/instances_*.json (COCO)"
    )


def _check_out(source: Path, out: Path) -> None:
    if out.resolve() == source.resolve() or source.resolve() in out.resolve().parents:
        raise UserError(f"--out {out} is inside the source: choose a folder of its own")
    for name in ("ImageSets", "annotations"):
        if (out / name).exists():
            raise UserError(f"--out {out} holds a data set already: delete it, or choose another")


def choose(layout: Layout, choice: Choice) -> Lists:
    """The lists of the subset, their ids sorted. UserError for unknown classes and empty lists."""
    classes = {*(layout.classes if choice.classes is None else choice.classes)}
    unknown = ", ".join(sorted(classes - {*layout.classes}))
    if unknown:
        raise UserError(f"--classes: {unknown} is none of {', '.join(layout.classes)}")
    lists: Lists = {}
    for name in dict.fromkeys(choice.lists):
        ids = [i for i in sorted(set(_ids(layout, choice, name))) if layout.shows(i, classes)]
        lists[name] = ids[: choice.limit]
    for text in choice.samples:
        name, ids = sample(text, lists)
        lists[_new(name, lists)] = ids
    for text in choice.differences:
        name, ids = difference(text, lists)
        lists[_new(name, lists)] = ids
    empty = [name for name, ids in lists.items() if not ids]
    if empty:
        raise UserError(f"list {empty[0]} would be empty: no image with a mask shows the classes")
    return lists


def _ids(layout: Layout, choice: Choice, name: str) -> Iterable[str]:
    if choice.lists_from is not None:
        lines = read_list(choice.lists_from / f"{name}.txt", Findings())
        if lines is not None:
            return [layout.resolve(line) for line in lines]
    return layout.ids(name)


def _new(name: str, lists: Mapping[str, object]) -> str:
    if name in lists:
        raise UserError(f"list {name!r} is there already: give the new one another name")
    return name


def _known(name: str, lists: Lists, option: str) -> list[str]:
    if name not in lists:
        raise UserError(f"{option}: no list {name!r}: the lists are {', '.join(lists)}")
    return lists[name]


def sample(text: str, lists: Lists) -> tuple[str, list[str]]:
    """Parse and apply ``NEW=LIST:COUNT[:containing=OTHER]``; returns the name and sorted ids.

    After the images of OTHER come those of LIST with the smallest SHA-256 of their id. The rule
    depends on no order and no generator, and a smaller sample lies within a larger one.
    """
    match = _SAMPLE.fullmatch(text)
    if match is None:
        raise UserError(f"--sample {text}: write NEW=LIST:COUNT or NEW=LIST:COUNT:containing=OTHER")
    base = _known(match[2], lists, "--sample")
    first = _known(match[4], lists, "--sample") if match[4] else []
    count = int(match[3])
    if not {*first} <= {*base}:
        raise UserError(f"--sample {text}: {match[4]} has images that {match[2]} has not")
    if not len(first) <= count <= len(base):
        raise UserError(
            f"--sample {text}: the count must be from {len(first)} to {len(base)}, the images there"
        )
    rest = sorted({*base} - {*first}, key=lambda i: hashlib.sha256(i.encode()).hexdigest())
    return match[1], sorted([*first, *rest[: count - len(first)]])


def difference(text: str, lists: Lists) -> tuple[str, list[str]]:
    """Parse and apply ``NEW=LIST-OTHER``; returns the name and sorted ids."""
    name, equals, rule = text.partition("=")
    if not equals or not re.fullmatch(_NAME, name) or "-" not in rule:
        raise UserError(f"--difference {text}: write NEW=LIST-OTHER")
    # Names may hold hyphens themselves.
    parts = rule.split("-")
    splits = [("-".join(parts[:k]), "-".join(parts[k:])) for k in range(1, len(parts))]
    known = [pair for pair in splits if pair[0] in lists and pair[1] in lists]
    if not known:
        raise UserError(f"--difference {text}: the lists are {', '.join(lists)}")
    left, right = known[0]
    return name, sorted({*lists[left]} - {*lists[right]})


def write_lists(folder: Path, lists: Mapping[str, Sequence[str]]) -> None:
    """Write text lists, one id a line."""
    from wsss.atomic import atomic_path

    for name, ids in lists.items():
        with atomic_path(folder / f"{name}.txt") as temporary:
            temporary.write_bytes("".join(f"{i}\n" for i in ids).encode())
