"""What was run on which data, by which code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from wsss.report.blocks import Section, Table
from wsss.report.configuration import same_for
from wsss.report.results import Results

# Where a release stands in a record: git describe of 40 digits, + for uncommitted changes.
_SHORT = 12


def summary(results: Results) -> str:
    """The page in a sentence."""
    variants, seeds = len(results.variants), len(results.seeds)
    told = (
        f"Weakly supervised semantic segmentation of {results.manifest.num_classes} classes: "
        f"{variants} variant{'s' if variants > 1 else ''}, "
        f"{seeds} seed{'s' if seeds > 1 else ''} each."
    )
    if results.scored:
        return told
    return f"{told} No list with ground truth is named, so nothing is scored."


def overview_section(results: Results) -> Section:
    """Data set, lists, variants and seeds, data hash, revisions and versions."""
    rows = [list(row) for row in _facts(results)]
    table = Table("What the numbers belong to", ["what", "value"], rows, numbers=False)
    return Section("overview", "Data, code and versions", [table])


def _facts(results: Results) -> Iterator[tuple[str, str]]:
    manifest = results.manifest
    yield "data set", f"{results.where.dataset} (source: {manifest.source})"
    yield "data hash", manifest.data_hash
    names = same_for(list(manifest.classes), 12)
    yield f"classes ({manifest.num_classes})", names
    lists = dict.fromkeys(name for name in manifest.roles.values() if name)
    for name in lists:
        roles = ", ".join(role for role, split in manifest.roles.items() if split == name)
        items = manifest.split(name)
        masks = sum(item.mask is not None for item in items)
        yield f"list '{name}'", f"{roles}: {len(items)} images, {masks} with ground truth"
    yield "variants", ", ".join(results.variants)
    yield "seeds", ", ".join(map(str, results.seeds))
    if not results.records:
        yield "code", "no records of jobs (*.run.json) are here"
        return
    yield "code (git)", "; ".join(_revisions(results.records))
    yield "machine", "; ".join(_distinct(results.records, "machine"))
    yield "python", "; ".join(_distinct(results.records, "python"))
    yield "packages", "; ".join(_versions(results.records))


def _distinct(records: list[Mapping[str, Any]], key: str) -> list[str]:
    """Values of a fact, the most frequent first, with their number of jobs where they differ."""
    counts: dict[str, int] = {}
    for record in records:
        value = str(record.get(key) or "unknown")
        counts[value] = counts.get(value, 0) + 1
    order = sorted(counts, key=lambda value: (-counts[value], value))
    return order if len(order) == 1 else [f"{value} ({counts[value]} jobs)" for value in order]


def _revisions(records: list[Mapping[str, Any]]) -> list[str]:
    def short(git: object) -> str:
        if not git:
            return "unknown"
        text = str(git)
        return f"{text[:_SHORT]} with uncommitted changes" if text.endswith("+") else text[:_SHORT]

    return _distinct([{"git": short(record.get("git"))} for record in records], "git")


def _versions(records: list[Mapping[str, Any]]) -> list[str]:
    """Every package with the versions that jobs ran with."""
    found: dict[str, set[str]] = {}
    for record in records:
        for name, version in (record.get("versions") or {}).items():
            found.setdefault(name, set()).add(str(version))
    return [f"{name} {' and '.join(sorted(found[name]))}" for name in sorted(found)]
