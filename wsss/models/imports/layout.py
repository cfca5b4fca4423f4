"""What a layout of published checkpoints is, and how a file in it fills a network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from wsss.errors import UserError
from wsss.models.imports import load_layout
from wsss.models.imports.keys import Rule, complete, translate
from wsss.models.weights import read_file


@dataclass(frozen=True)
class Layout:
    """One kind of published checkpoint.

    Attributes:
        title: what it is.
        source: whose code wrote it, and what the layout was read from.
        stage: whose training it stands in for.
        classes: foreground classes in the order of its outputs.
        background: whether output 0 is background.
        settings: sections of the configuration that the network needs to be.
        protocol: how its authors test it; advice, printed by ``wsss import``.
        rules: from its keys to those of the network.
        by_class: keys of the network whose first dimension counts classes.
        mean, std: RGB in [0, 1], as the network normalises its input.
        adapt: what has to be done to the renamed tensors, in place.
    """

    title: str
    source: str
    stage: Literal["classify", "segment"]
    classes: tuple[str, ...]
    background: bool
    settings: Mapping[str, Any]
    protocol: Mapping[str, Any]
    rules: Sequence[Rule]
    by_class: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    adapt: Callable[[dict[str, Tensor]], None] = lambda _: None


def unlike(settings: Mapping[str, Any], config: BaseModel, prefix: str = "") -> str | None:
    """Return the first key whose configured value is not what ``settings`` demand, or None."""
    for name, wanted in settings.items():
        value, key = getattr(config, name), f"{prefix}{name}"
        if isinstance(wanted, Mapping):
            if found := unlike(wanted, value, f"{key}."):
                return found
        elif key == "backbone.name":
            # A tag names weights, not an architecture.
            if value.partition(".")[0] != wanted:
                return f"{key} {wanted!r}, not {value!r}"
        elif value != wanted:
            return f"{key} {wanted!r}, not {value!r}"
    return None


def fill(
    network: nn.Module,
    path: Path,
    name: str,
    classes: Sequence[str],
    order: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Fill ``network`` from a published checkpoint and say what was imported.

    Args:
        network: with ``backbone``, built as the layout's settings demand.
        path: the checkpoint.
        name: of its layout.
        classes: foreground classes of the network, in its order; a selection of the
            checkpoint's will do.
        order: the checkpoint's own classes where they are not the layout's.

    Returns:
        The facts that stand in the metadata of the imported weights.

    Raises:
        UserError: no such layout, no checkpoint of plain tensors, keys or shapes that do not
            fit, or a class that the checkpoint does not know.
    """
    layout = load_layout(name)
    where = f"{path} as layout {name!r}"
    state = translate(read_file(path, "checkpoint"), layout.rules, where)
    order = tuple(order or layout.classes)
    rows = _rows(order, classes, layout.background, where)
    for key in [key for key in state if _matches(key, layout.by_class)]:
        outputs = len(order) + layout.background
        if len(state[key]) != outputs:
            raise UserError(
                f"{where}: {key} has {len(state[key])} outputs, {outputs} are expected for "
                f"{len(order)} classes: state the checkpoint's classes, in its order"
            )
        state[key] = state[key][rows]
    layout.adapt(state)
    state["backbone.mean"] = torch.tensor(layout.mean)
    state["backbone.std"] = torch.tensor(layout.std)
    network.load_state_dict(complete(state, network.state_dict(), where))
    facts = {"layout": name, "sha256": _sha256(path)}
    return facts | ({} if list(order) == list(classes) else {"classes": list(order)})


def _matches(key: str, pattern: str) -> bool:
    import re

    return re.fullmatch(pattern, key) is not None


def _rows(order: Sequence[str], classes: Sequence[str], background: bool, where: str) -> list[int]:
    """Return which outputs of the checkpoint the network keeps, background first."""
    absent = [name for name in classes if name not in order]
    if absent:
        raise UserError(f"{where} does not know the class {absent[0]!r}: it knows {_list(order)}")
    shift = int(background)
    return [*range(shift), *(order.index(name) + shift for name in classes)]


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
