"""The scores of each run as numbers and nothing else: what DVC shows and compares."""

from __future__ import annotations

from collections.abc import Iterable

from wsss.artifacts import load_json, save_json
from wsss.paths import Paths


def save_mious(paths: Paths, steps: Iterable[str]) -> None:
    """Write ``miou.json``: the mIoU (a fraction) of each step that a variant and seed has.

    Shared steps are those of the variant that holds them; a score that is not a number is left out.
    """
    found: dict[str, float] = {}
    for step in steps:
        file = paths.report(step)
        miou = load_json(file)["miou"] if file.is_file() else None
        if miou is not None:
            found[step] = miou
    save_json(paths.run / "miou.json", found)
