"""The exact configuration of every variant: the keys that its stages read, and no others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from wsss.config import Config, Params, stage_params
from wsss.pipeline import stages_run
from wsss.report.blocks import Block, Code, Fold, Legend, Section, Table, Text
from wsss.report.comparison import ABSENT


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        inner = isinstance(value, Mapping) and value
        found |= flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return found


def read_keys(config: Config) -> dict[str, Any]:
    """The values that any stage of a variant reads, by dotted key."""
    found: dict[str, Any] = {}
    for stage in stages_run(config):
        found |= flat(stage_params(config, stage))
    return dict(sorted(found.items()))


def described(params: Params) -> dict[str, dict[str, Any]]:
    """What the page says of every variant's configuration: the report goes stale with it."""
    return {variant: read_keys(params.resolve(variant)) for variant in params.base.run.variants}


def section(params: Params) -> Section:
    """The keys in which variants differ, then those they have in common."""
    return Section("configuration", "Configuration", blocks(described(params)))


def blocks(values: Mapping[str, Mapping[str, Any]]) -> list[Block]:
    """Differences, common keys, and every variant's own complete list."""
    variants = list(values)
    keys = sorted({key for found in values.values() for key in found})
    apart = _sections_of_some(keys)
    differing = [key for key in keys if key in apart or len(_values(values, key)) > 1]
    common = {
        key: next(found[key] for found in values.values() if key in found)
        for key in keys
        if key not in differing
    }
    result: list[Block] = [
        Text(
            "The values that the stages of each variant read, resolved. A dash: no stage of that "
            "variant reads the key."
        )
    ]
    if differing:
        caption = "Keys that are read with different values"
        rows = [[key, *(_shown(values[v], key) for v in variants)] for key in differing]
        table = Table(caption, ["key", *variants], rows, numbers=False, keyed=True)
        result += [Legend(variants), table]
    elif len(variants) > 1:
        result.append(Text("The variants do not differ in any key that they read."))
    title = "The same wherever they are read" if len(variants) > 1 else "All keys"
    result.append(Fold(f"{title} ({len(common)} keys)", [Code(nested_yaml(common))]))
    if len(variants) > 1:
        complete = [
            Fold(f"{variant} ({len(found)} keys)", [Code(nested_yaml(found))])
            for variant, found in values.items()
        ]
        result.append(Fold("Each variant, complete", complete))
    return result


def _sections_of_some(keys: Sequence[str]) -> set[str]:
    """Keys that are a section in one variant and a plain value in another, such as one that is
    null unless it is used: the key itself, and all within the section."""
    known = set(keys)
    found = set()
    for key in keys:
        parts = key.split(".")
        above = {".".join(parts[:i]) for i in range(1, len(parts))} & known
        found |= {key, *above} if above else set()
    return found


def _values(values: Mapping[str, Mapping[str, Any]], key: str) -> set[str]:
    """The different values that a key is read with."""
    return {plain(found[key]) for found in values.values() if key in found}


def _shown(values: Mapping[str, Any], key: str) -> str:
    return plain(values[key]) if key in values else ABSENT


def plain(value: Any) -> str:
    """A value as YAML writes it on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("...").strip()


def nested_yaml(values: Mapping[str, Any]) -> str:
    """Dotted keys as the YAML that params.yaml would hold."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *path, last = key.split(".")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    text: str = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    return text


def same_for(names: Sequence[str], limit: int = 3) -> str:
    """A few names, and how many more there are."""
    more = len(names) - limit
    shown = ", ".join(names[:limit])
    return shown if more <= 0 else f"{shown} and {more} more"
