"""A smaller data set in VOC's layout, see :mod:`wsss.data.subset`.

Annotations keep the names of objects, with their boxes where there are any. Masks come from
where :mod:`wsss.data.voc` takes them, and go to ``SegmentationClassAug``.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement

from wsss.atomic import atomic_path
from wsss.data import images, voc
from wsss.data.scan import Findings
from wsss.data.shrink import shrink_image, shrink_mask, shrunk
from wsss.data.subset import Lists, Size, write_lists
from wsss.errors import UserError

_EDGES = ("xmin", "ymin", "xmax", "ymax")


class VocLayout:
    """A VOC folder to take images from."""

    classes: tuple[str, ...] = voc.CLASSES

    def __init__(self, root: Path) -> None:
        self.root = root
        self._masks = voc.find_masks(root)

    def ids(self, name: str) -> list[str]:
        """The images of a list; ``train_aug`` is composed where it has no file."""
        findings = Findings()
        ids = voc.list_ids(self.root, name, findings)
        _stop(findings)
        return ids or []

    def resolve(self, line: str) -> str:
        """The line itself: VOC's images have one name."""
        return line

    def shows(self, identifier: str, classes: set[str]) -> bool:
        """Whether an image has a mask and an object of one of the classes."""
        if identifier not in self._masks:
            return False
        findings = Findings()
        tags = voc.tags(self.root, identifier, findings)
        _stop(findings)
        return bool(tags & classes)

    def writer(self, out: Path, size: Size) -> Callable[[str], object]:
        """Writes the photo, the mask and the annotation of one image."""
        return _Writer(self.root, out, size, self._masks)

    def finish(self, out: Path, lists: Lists, _size: Size) -> None:
        """Write the lists."""
        write_lists(out / voc.LISTS, lists)


def _stop(findings: Findings) -> None:
    for problem in findings.problems():
        if problem.severity == "error":
            raise UserError(f"--source-root: {str(problem).removeprefix('error: ')}")


@dataclass(frozen=True)
class _Writer:
    """Makes one image's three files."""

    root: Path
    out: Path
    size: Size
    masks: dict[str, str]

    def __call__(self, identifier: str) -> None:
        photo = f"JPEGImages/{identifier}.jpg"
        data = images.read_bytes(self.root, photo)
        before = images.image_size(data, photo)
        mask_path = self.masks[identifier]
        mask_data = images.read_bytes(self.root, mask_path)
        if images.image_size(mask_data, mask_path) != before:
            raise UserError(f"{mask_path} has not the size of its image: run `wsss data check`")
        # All of it before the first file is written: what cannot be read leaves nothing behind.
        files = {
            photo: shrink_image(data, photo, self.size.side, self.size.quality),
            f"{voc.MASK_FOLDERS[0]}/{identifier}.png": shrink_mask(
                mask_data, mask_path, self.size.side
            ),
            f"Annotations/{identifier}.xml": reduce_annotation(
                images.read_bytes(self.root, f"Annotations/{identifier}.xml"),
                identifier,
                before,
                shrunk(before, self.size.side),
            ),
        }
        for path, payload in files.items():
            with atomic_path(self.out / path) as temporary:
                temporary.write_bytes(payload)


def reduce_annotation(
    data: bytes, identifier: str, before: tuple[int, int], after: tuple[int, int]
) -> bytes:
    """The XML of an image whose (H, W) changed: names of objects, and boxes scaled with it."""
    source = ElementTree.fromstring(data)
    root = Element("annotation")
    SubElement(root, "folder").text = "VOC2012"
    SubElement(root, "filename").text = f"{identifier}.jpg"
    size = SubElement(root, "size")
    for name, value in (("width", after[1]), ("height", after[0]), ("depth", 3)):
        SubElement(size, name).text = str(value)
    for entry in source.findall("object"):
        one = SubElement(root, "object")
        SubElement(one, "name").text = (entry.findtext("name") or "").strip()
        box = entry.find("bndbox")
        if box is not None:
            _add_box(one, box, after[1] / before[1], after[0] / before[0])
    ElementTree.indent(root, " ")
    text: bytes = ElementTree.tostring(root, encoding="utf-8")
    return text + b"\n"


def _add_box(parent: Element, box: Element, across: float, down: float) -> None:
    """Copy a box whose edges are scaled by ``across`` and ``down``."""
    copy = SubElement(parent, "bndbox")
    for edge in _EDGES:
        value = float(box.findtext(edge) or 0) * (across if edge[0] == "x" else down)
        SubElement(copy, edge).text = f"{round(value, 2):g}"
