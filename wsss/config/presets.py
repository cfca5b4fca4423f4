"""The presets: overlays under workflow/presets, with what is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from wsss.config.about import About
from wsss.config.resolve import VARIANTS, read_yaml
from wsss.errors import UserError

UNKNOWN = "unknown"
# What a recipe is judged by, the last of them that it has a number for.
_STEPS = ("cam", "crf", "walk", "pseudo", "single", "multi", "final")


class Preset(NamedTuple):
    """One variant of an overlay file, or a whole file that describes data alone.

    ``variant`` and ``about`` are None for the latter; ``first`` is the first sentence of the
    file's comment.
    """

    path: Path
    name: str
    dataset: str
    variant: str | None
    about: About | None
    first: str


def read_presets(folder: Path) -> list[Preset]:
    """Read all presets under ``folder`` without resolving them, so that no data need be there.

    Raises:
        UserError: no such folder, a file that is no overlay, or a head that is not complete.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: run this in the project, or name one by --folder")
    return [preset for path in sorted(folder.rglob("*.yaml")) for preset in _of_file(path, folder)]


def _of_file(path: Path, folder: Path) -> list[Preset]:
    raw = read_yaml(path)
    name = path.relative_to(folder).with_suffix("").as_posix()
    dataset = str((raw.get("run") or {}).get("dataset", "any"))
    first = _first_sentence(path.read_text(encoding="utf-8"))
    heads = {
        variant: top["about"]
        for variant, top in (raw.get(VARIANTS) or {}).items()
        if isinstance(top, dict) and top.get("about") is not None
    }
    if not heads:
        return [Preset(path, name, dataset, None, None, first)]
    return [
        Preset(path, name, dataset, variant, _about(head, path, variant), first)
        for variant, head in heads.items()
    ]


def _first_sentence(text: str) -> str:
    comment = takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.lstrip("# ") for line in comment).split(". ", 1)[0].rstrip(".")


def _about(head: Any, path: Path, variant: str) -> About:
    try:
        return About.model_validate(head)
    except ValidationError as error:
        detail = error.errors()[0]
        key = ".".join([VARIANTS, variant, "about", *map(str, detail["loc"])])
        raise UserError(f"{path}: {key}: {detail['msg']}") from error


def headline(about: About) -> str:
    """Return the score at the last step of the pipeline that has one."""
    for step in reversed(_STEPS):
        expected = about.expected.get(step)
        if expected is not None and expected.miou != UNKNOWN:
            return f"{step} {expected.miou} ({expected.setting})"
    return UNKNOWN


def table(presets: Sequence[Preset]) -> list[str]:
    """Return aligned lines: name, data set, variant, published score, run here or not."""
    rows = [("preset", "data set", "variant", "run here", "published mIoU (%)")]
    for preset in presets:
        about = preset.about
        if about is None or preset.variant is None:
            rows.append((preset.name, preset.dataset, "–", "–", preset.first))
            continue
        run = "yes" if about.run_here else "no"
        rows.append((preset.name, preset.dataset, preset.variant, run, headline(about)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return [
        "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    ]
