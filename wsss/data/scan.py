"""What a source found: the images it could make out and everything that is wrong with them.

Scanning never stops at a problem, so that one run can list them all; building a manifest from a
scan does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from wsss.data.content import content_hash
from wsss.data.manifest import ROLES, SEPARATOR, Item, Manifest, unwritable
from wsss.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from wsss.config.schema import Splits

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
EXAMPLES = 5
# Roles whose lists may share no image: what tunes or trains must not be what is reported.
# seed and tune may lie inside train, where only their tags are used.
DISJOINT = (("train", "val"), ("tune", "seed"), ("tune", "val"), ("seed", "val"))
SCORED = ("seed", "tune", "val")
MAX_CLASSES = 254

KINDS: dict[str, tuple[Severity, str]] = {
    "root-missing": ("error", "point data.root at the folder of the data set"),
    "class-name": (
        "error",
        "data.classes: up to 254 different names without ';' or line breaks, none 'background'",
    ),
    "class-unknown": ("error", "data.classes may only name classes of the source"),
    "list-missing": ("error", "put the list there or change data.splits"),
    "list-unknown": ("error", "a list may only name images that the annotations describe"),
    "list-duplicate": ("note", "an id listed more than once counts once"),
    "split-empty": ("error", "fill the list, or set data.splits.<role> to null"),
    "split-overlap": ("error", "take the shared images off one of the two lists"),
    "csv-unreadable": ("error", "save the table as UTF-8 CSV with commas, and check data.csv"),
    "csv-columns": ("error", "the columns are image,labels and optionally mask,split"),
    "csv-row": ("error", "one cell a column; quote cells that contain commas, close quotes"),
    "path-outside": ("error", "write paths relative to the CSV's folder, inside data.root"),
    "id-collision": ("error", "two images may not differ in their extension only: rename one"),
    "row-duplicate": ("note", "equal rows of one image count once, their splits are united"),
    "row-conflict": ("error", "keep one row of the image"),
    "row-unused": ("note", "these rows are on no list that data.splits names"),
    "annotation-missing": ("error", "tags come from Annotations/<id>.xml: restore it"),
    "annotation-unreadable": ("error", "restore the XML file"),
    "instances-unreadable": ("error", "restore annotations/instances_<list>.json"),
    "instances-entry": ("error", "give the entry the fields of COCO's format, or remove it"),
    "instances-duplicate": ("error", "images, annotations and categories need ids of their own"),
    "instances-categories": ("error", "all lists must name the same categories by the same ids"),
    "instances-orphan": ("warning", "annotations of images that the file lacks are not used"),
    "segmentation-empty": ("warning", "an annotation without outline is a tag without pixels"),
    "segmentation-broken": ("error", "correct the outline or remove the annotation"),
    "label-unknown": ("error", "correct the name, or add it to data.classes"),
    "unlabelled-left-out": ("note", "images without a label are kept out of training"),
    "no-label": ("error", "tag the images or take them off the train list"),
    "class-absent": ("warning", "no train image has this tag, so it cannot be learned"),
    "image-missing": ("error", "restore the file or take the id off its lists"),
    "image-unreadable": ("error", "the file is damaged or of no usable kind: restore it"),
    "image-turned": ("note", "EXIF turns these images: their masks must show them upright"),
    "mask-missing": ("error", "scores need masks: restore them or change data.splits"),
    "mask-not-found": ("error", "correct the path, or leave the mask cell empty"),
    "mask-unreadable": ("error", "the file is damaged or of no usable kind: restore it"),
    "size-mismatch": ("error", "a mask must have the size of its image as viewers display it"),
    "mask-ids": ("error", "masks hold 0 for background, the classes' ids and 255 for ignore"),
    "tag-without-pixels": ("note", "the tag's class is nowhere in the mask"),
    "pixels-without-tag": ("note", "the mask shows a class that the tags do not name"),
}


@dataclass(frozen=True)
class Problem:
    """One kind of finding: how often, up to five examples, and what to do."""

    kind: str
    severity: Severity
    count: int
    examples: tuple[str, ...]
    hint: str

    def __str__(self) -> str:
        more = "; ..." if self.count > len(self.examples) else ""
        examples = "; ".join(self.examples)
        return f"{self.severity}: {self.kind} x{self.count}: {examples}{more} ({self.hint})"


@dataclass
class Findings:
    """Collects problems by kind; keeps the first examples of each."""

    _counts: dict[tuple[str, Severity], int] = field(default_factory=dict)
    _examples: dict[tuple[str, Severity], list[str]] = field(default_factory=dict)

    def add(
        self, kind: str, example: str, severity: Severity | None = None, count: int = 1
    ) -> None:
        """Record ``count`` findings with one example; severity defaults to the kind's own."""
        key = (kind, severity or KINDS[kind][0])
        self._counts[key] = self._counts.get(key, 0) + count
        examples = self._examples.setdefault(key, [])
        if len(examples) < EXAMPLES:
            examples.append(example)

    def problems(self) -> list[Problem]:
        """All findings, errors first, in the order of :data:`KINDS`."""
        order = {kind: index for index, kind in enumerate(KINDS)}
        keys = sorted(self._counts, key=lambda key: (SEVERITIES.index(key[1]), order[key[0]]))
        return [
            Problem(kind, severity, self._counts[kind, severity], tuple(examples), KINDS[kind][1])
            for kind, severity in keys
            for examples in [self._examples[kind, severity]]
        ]


@dataclass(frozen=True)
class Scan:
    """A source as far as it could be read; ``findings`` says what is wrong with it."""

    source: str
    root: Path
    classes: tuple[str, ...]
    mask_values: tuple[int, ...]
    background_values: tuple[int, ...]
    roles: dict[str, str | None]
    items: tuple[Item, ...]
    findings: Findings
    # Of a source that draws its masks: the folder they are in once drawn, and one of them now.
    mask_root: Path | None = None
    draw_mask: Callable[[Item], np.ndarray] | None = None

    def role(self, name: str) -> list[Item]:
        """The images of a role, none if it has no list."""
        return [item for item in self.items if self.roles.get(name) in item.splits]

    def stop_at_errors(self) -> None:
        """UserError that sums the errors up, if there are any."""
        errors = [p for p in self.findings.problems() if p.severity == "error"]
        if errors:
            more = f", and {len(errors) - 1} more kinds of error" if errors[1:] else ""
            text = str(errors[0]).removeprefix("error: ")
            raise UserError(f"data: {text}{more}: `wsss data check` lists them all")

    def manifest(self) -> Manifest:
        """The manifest of a scan without errors. UserError sums the errors up otherwise."""
        self.stop_at_errors()
        ids = (self.mask_values, self.background_values)
        return Manifest(
            source=self.source,
            root=self.root,
            classes=self.classes,
            mask_values=self.mask_values,
            background_values=self.background_values,
            roles=self.roles,
            data_hash=content_hash(
                self.root, self.items, self.classes, *ids, mask_root=self.mask_root
            ),
            items=self.items,
            mask_root=self.mask_root,
        )


def lists_of_roles(splits: Splits) -> dict[str, tuple[str, ...]]:
    """The list names each role unites; a role set to null is left out."""
    result = {}
    for role in ROLES:
        names = getattr(splits, role)
        if names is not None:
            result[role] = (names,) if isinstance(names, str) else tuple(dict.fromkeys(names))
    return result


def named_roles(wanted: Mapping[str, tuple[str, ...]]) -> dict[str, str | None]:
    """The list name of every role; a union is a list of its own, ``a+b``."""
    return {role: "+".join(wanted[role]) if role in wanted else None for role in ROLES}


def memberships(
    lists: Mapping[str, Iterable[str]], wanted: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Map every id of the lists in use to the sorted names of the lists and unions it is on."""
    splits: dict[str, set[str]] = {}
    for names in wanted.values():
        for name in names:
            for identifier in lists.get(name, ()):
                splits.setdefault(identifier, set()).update({name, "+".join(names)})
    return {identifier: tuple(sorted(found)) for identifier, found in splits.items()}


def check_names(findings: Findings, classes: Collection[str]) -> None:
    """Report class names that files or reports could not hold."""
    seen: set[str] = set()
    for name in classes:
        bad = not name.strip() or SEPARATOR in name or unwritable(name)
        if bad or name in seen or name == "background":
            findings.add("class-name", repr(name))
        seen.add(name)
    if len(seen) > MAX_CLASSES:
        findings.add("class-name", f"{len(seen)} classes")


def check_roles(scan: Scan, missing: Collection[str], subset: bool) -> None:
    """Report what is wrong with whole roles.

    ``missing`` are roles already reported; with a class ``subset`` chosen, train images that
    lost all their tags are expected.
    """
    members = {role: scan.role(role) for role in ROLES if scan.roles[role] and role not in missing}
    for role, items in members.items():
        if not items:
            scan.findings.add("split-empty", f"{role} ({scan.roles[role]})")
    _check_overlap(scan, members)
    for item in members.get("train", ()):
        if not item.labels:
            scan.findings.add("no-label", item.id, "warning" if subset else None)
    if members.get("train"):
        tagged = {label for item in members["train"] for label in item.labels}
        for name in scan.classes:
            if name not in tagged:
                scan.findings.add("class-absent", name)
    _check_masks(scan, members)


def _check_overlap(scan: Scan, members: Mapping[str, list[Item]]) -> None:
    ids = {role: {item.id for item in items} for role, items in members.items()}
    for first, second in DISJOINT:
        shared = sorted(ids.get(first, set()) & ids.get(second, set()))
        if shared:
            some = ", ".join(shared[:EXAMPLES])
            scan.findings.add("split-overlap", f"{first} and {second}: {some}", count=len(shared))


def _check_masks(scan: Scan, members: Mapping[str, list[Item]]) -> None:
    """A scored role without any mask is an error, one with some missing is a warning."""
    for role in SCORED:
        lacking = [item for item in members.get(role, ()) if item.mask is None]
        severity: Severity = "error" if len(lacking) == len(members.get(role, ())) else "warning"
        for item in lacking:
            scan.findings.add("mask-missing", f"{role}: {item.id}", severity)
