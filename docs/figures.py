"""Draw the idea of each method as docs/images/methods/NAME.svg.

python docs/figures.py

Boxes stand on a grid of columns and rows; an arrow joins the sides of two of them that face each
other. Text stays text, so that the files are small; the same figures give the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import matplotlib as mpl

mpl.use("svg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

FOLDER = Path(__file__).parent / "images" / "methods"
COLUMN, ROW = 2.35, 0.98  # inches between centres
WIDE, HIGH = 1.95, 0.64  # of a box
INK, MUTED = "#22272e", "#57606a"
Kind = Literal["data", "net", "map", "target", "loss"]
FILL: dict[Kind, str] = {
    "data": "#eef1f4",
    "net": "#d6e6fb",
    "map": "#d9f0dd",
    "target": "#f2f2f2",
    "loss": "#fde3c8",
}
LEGEND: dict[Kind, str] = {
    "data": "image",
    "net": "trained",
    "map": "map, feature",
    "target": "no gradient",
    "loss": "term of the loss",
}


class Box(NamedTuple):
    """A box at a (column, row), fractions allowed."""

    column: float
    row: float
    text: str
    kind: Kind


class Arrow(NamedTuple):
    """From one box to another; dashed where no gradient comes back."""

    start: str
    end: str
    dashed: bool = False
    text: str = ""


class Figure(NamedTuple):
    """Boxes by name, arrows between them, and a line below."""

    boxes: dict[str, Box]
    arrows: list[Arrow]
    caption: str


BASELINE = Figure(
    {
        "image": Box(0, 0, "crop", "data"),
        "net": Box(1, 0, "backbone", "net"),
        "head": Box(2, 0, "dropout, 1×1\nclassifier", "net"),
        "cam": Box(3, 0, "CAM", "map"),
        "cls": Box(4, 0, "cls\naverage against tags", "loss"),
        "seeds": Box(3, 1, "seeds", "target"),
    },
    [
        Arrow("image", "net"),
        Arrow("net", "head"),
        Arrow("head", "cam"),
        Arrow("cam", "cls"),
        Arrow("cam", "seeds", dashed=True),
    ],
    "A classifier whose last map is averaged: the map says where.",
)

SEAM = Figure(
    {
        "one": Box(0, 1, "view 1\ncrop", "data"),
        "two": Box(0, 3, "view 2\nthe crop × 0.3", "data"),
        "net1": Box(1, 1, "network", "net"),
        "net2": Box(1, 3, "the same network", "net"),
        "cam1": Box(2, 1, "CAM 1", "map"),
        "cam2": Box(2, 3, "CAM 2", "map"),
        "pcm1": Box(3, 1, "PCM: colours,\nconv4, conv5", "net"),
        "pcm2": Box(3, 3, "PCM", "net"),
        "ref1": Box(4, 1, "refined 1", "map"),
        "ref2": Box(4, 3, "refined 2", "map"),
        "cls": Box(2, 0, "cls\nboth views", "loss"),
        "min": Box(4, 0, "min\nboth views", "loss"),
        "er": Box(2, 2, "er\nCAMs agree", "loss"),
        "ecr1": Box(3.5, 2, "ecr: refined against\nthe other view's CAM", "loss"),
    },
    [
        Arrow("one", "two", text="resize"),
        Arrow("one", "net1"),
        Arrow("two", "net2"),
        Arrow("net1", "cam1"),
        Arrow("net2", "cam2"),
        Arrow("cam1", "pcm1", dashed=True),
        Arrow("cam2", "pcm2", dashed=True),
        Arrow("pcm1", "ref1"),
        Arrow("pcm2", "ref2"),
        Arrow("cam1", "cls"),
        Arrow("cam1", "er"),
        Arrow("cam2", "er"),
        Arrow("ref1", "min"),
        Arrow("ref1", "ecr1"),
        Arrow("ref2", "ecr1"),
        Arrow("cam1", "ecr1", dashed=True),
        Arrow("cam2", "ecr1", dashed=True),
    ],
    "Scaling an image shall scale its map; a pixel correlation module (PCM) spreads maps over "
    "cells that look alike.",
)

PPC = Figure(
    {
        "one": Box(0, 0.5, "view 1\ncrop", "data"),
        "two": Box(0, 2.5, "view 2\nthe crop × 2/7", "data"),
        "net": Box(1, 1.5, "SEAM's network\n+ projection", "net"),
        "ref1": Box(2, 0, "refined 1", "map"),
        "f1": Box(2, 1, "features f1", "map"),
        "f2": Box(2, 2, "features f2", "map"),
        "ref2": Box(2, 3, "refined 2", "map"),
        "y1": Box(3, 0, "pseudo labels 1", "target"),
        "p1": Box(3, 1, "prototypes 1\nof the batch", "target"),
        "p2": Box(3, 2, "prototypes 2\nof the batch", "target"),
        "y2": Box(3, 3, "pseudo labels 2", "target"),
        "intra": Box(4.25, 0.5, "nce_intra: f1, labels 1,\nprototypes 1, mined", "loss"),
        "cross": Box(4.25, 1.5, "nce_cross_prototype:\nf1, labels 1, prototypes 2", "loss"),
        "label": Box(4.25, 2.5, "nce_cross_label:\nf1, labels 2, prototypes 1", "loss"),
    },
    [
        Arrow("one", "net"),
        Arrow("two", "net"),
        Arrow("net", "ref1"),
        Arrow("net", "f1"),
        Arrow("net", "f2"),
        Arrow("net", "ref2"),
        Arrow("ref1", "y1", dashed=True),
        Arrow("ref1", "p1", dashed=True, text="weights"),
        Arrow("f1", "p1", dashed=True),
        Arrow("f2", "p2", dashed=True),
        Arrow("ref2", "p2", dashed=True),
        Arrow("ref2", "y2", dashed=True),
        Arrow("y1", "intra", dashed=True),
        Arrow("p1", "intra", dashed=True),
        Arrow("y1", "cross", dashed=True),
        Arrow("p2", "cross", dashed=True),
        Arrow("p1", "label", dashed=True),
        Arrow("y2", "label", dashed=True),
    ],
    "Beside SEAM's terms: cells are drawn to the prototype of their class, of either view and by "
    "either view's labels. Drawn for view 1; view 2 likewise.",
)

RTC = Figure(
    {
        "views": Box(0, 2, "crop, and\nits small copy", "data"),
        "net": Box(1, 2, "network\n(both views)", "net"),
        "cam": Box(2, 0, "CAM", "map"),
        "f": Box(2, 2, "features f", "map"),
        "deep": Box(2, 4, "conv3, conv6", "map"),
        "crr": Box(3, 0, "representation: PCM,\ndeep + shallow", "net"),
        "comp": Box(3.1, 1, "compensator: scores of\nsimilar cells of the batch", "target"),
        "proto": Box(3.1, 2, "transform: weights of one\nview, features of the other", "target"),
        "dec": Box(3, 4, "decoder", "net"),
        "ref": Box(4.2, 0, "refined CAM", "map"),
        "masks": Box(4.2, 2, "masks: two levels,\nrefined by colour", "target"),
        "cls": Box(2, -1, "cls, er\nas SEAM", "loss"),
        "min": Box(4.2, -1, "min, ecr\nas SEAM", "loss"),
        "com": Box(2, 1, "com", "loss"),
        "nce": Box(2, 3, "nce: three contrasts", "loss"),
        "seg": Box(4.2, 4, "seg", "loss"),
    },
    [
        Arrow("views", "net"),
        Arrow("net", "cam"),
        Arrow("net", "f"),
        Arrow("net", "deep"),
        Arrow("cam", "crr", dashed=True),
        Arrow("crr", "ref"),
        Arrow("cam", "cls"),
        Arrow("cam", "com"),
        Arrow("ref", "min"),
        Arrow("ref", "comp", dashed=True),
        Arrow("f", "comp", dashed=True),
        Arrow("comp", "com", dashed=True),
        Arrow("f", "proto", dashed=True),
        Arrow("ref", "proto", dashed=True),
        Arrow("f", "nce"),
        Arrow("proto", "nce", dashed=True),
        Arrow("deep", "dec"),
        Arrow("dec", "seg"),
        Arrow("ref", "masks", dashed=True),
        Arrow("masks", "seg", dashed=True),
    ],
    "One network: its maps are refined, contrasted over views, completed over the batch, and "
    "taught to a decoder that predicts.",
)

MUSCLE = Figure(
    {
        "crop": Box(0, 0.5, "step 1\ncrop", "data"),
        "pair": Box(0, 2.5, "step 2\ntwo overlapping views", "data"),
        "net1": Box(1, 0.5, "classifier", "net"),
        "net2": Box(1, 2.5, "the same classifier", "net"),
        "scores": Box(2, -0.5, "scores, pooled features", "map"),
        "cam": Box(2, 0.5, "CAM", "target"),
        "sgc": Box(2, 1.5, "refined CAM (SGC)", "map"),
        "sgc1": Box(2, 2.5, "SGC of view 1", "map"),
        "cam2": Box(2, 3.5, "CAM of view 2", "target"),
        "cls": Box(3.2, -1, "focal, soft, rank", "loss"),
        "imc": Box(3.2, -0.05, "imc: images of the\nsame tags are alike", "loss"),
        "er": Box(3.2, 0.9, "er: both agree where\nthey differ most", "loss"),
        "pix": Box(3.2, 2.5, "pix: pixels\nof the overlap agree", "loss"),
        "emd": Box(3.2, 3.5, "emd: transport\nbetween regions", "loss"),
        "irn": Box(4.4, 1.5, "IRNet", "net"),
        "bifpn": Box(4.4, 2.5, "BiFPN + contrast\nacross boundaries", "net"),
    },
    [
        Arrow("crop", "net1"),
        Arrow("pair", "net2"),
        Arrow("net1", "scores"),
        Arrow("net1", "cam"),
        Arrow("net1", "sgc"),
        Arrow("net2", "sgc1"),
        Arrow("net2", "cam2", dashed=True),
        Arrow("scores", "cls"),
        Arrow("scores", "imc"),
        Arrow("cam", "er", dashed=True),
        Arrow("sgc", "er"),
        Arrow("sgc1", "pix"),
        Arrow("cam2", "pix", dashed=True),
        Arrow("sgc1", "emd"),
        Arrow("cam2", "emd", dashed=True),
        Arrow("sgc", "irn", dashed=True, text="seeds"),
        Arrow("irn", "bifpn", dashed=True, text="soft labels"),
    ],
    "Features agree within a class at four levels: images, pixels, regions and, later, boundaries.",
)

PSS = Figure(
    {
        "image": Box(0, 1, "crop", "data"),
        "main": Box(1, 0, "MainNet", "net"),
        "support": Box(1, 2, "SupportNet", "target"),
        "f": Box(2, 0, "features f", "map"),
        "cam": Box(3.2, 0, "CAMs at scales\n0.5, 1, 2", "map"),
        "regions": Box(2, 2, "region masks,\nprototypes + memory", "target"),
        "scam": Box(3.2, 2, "CAMs at scales\n0.5, 1, 1.5, 2", "target"),
        "cls": Box(4.4, 0, "cls", "loss"),
        "rcm": Box(2, 1, "rcm: a cell to its\nclass's prototype", "loss"),
        "mam": Box(3.2, 1, "mam: grow towards the\nunlike scale", "loss"),
    },
    [
        Arrow("image", "main"),
        Arrow("image", "support"),
        Arrow("main", "support", dashed=True, text="average"),
        Arrow("main", "f"),
        Arrow("f", "cam"),
        Arrow("cam", "cls"),
        Arrow("f", "rcm"),
        Arrow("regions", "rcm", dashed=True),
        Arrow("cam", "mam"),
        Arrow("scam", "mam", dashed=True),
        Arrow("support", "regions", dashed=True),
        Arrow("scam", "regions", dashed=True),
    ],
    "A slow copy of the network shows it where classes are, cell by cell. A reconstruction from "
    "the abstract.",
)

DSCNET = Figure(
    {
        "group": Box(0, 1.5, "groups of images\nthat share a class", "data"),
        "net": Box(1, 1.5, "backbone", "net"),
        "cam": Box(2, 0, "CAM", "map"),
        "pix": Box(2, 1, "pixel embedding", "map"),
        "nodes": Box(2, 2, "nodes: a class\nin an image", "map"),
        "head": Box(2, 3, "segmentation head", "net"),
        "means": Box(3.1, 1, "spherical k-means\ngroups of the batch", "target"),
        "gcn": Box(3.1, 2, "graph convolutions,\ntwo stochastic views", "net"),
        "cls": Box(2, -1, "cls", "loss"),
        "pgcl": Box(4.25, 1, "pgcl: anchors of the\nembedding to groups", "loss"),
        "sgcl": Box(4.25, 2, "sgcl, node, cls_graph", "loss"),
        "masks": Box(4.25, 0, "pseudo labels: CAM +\ngraph maps, PAMR", "target"),
        "seg": Box(5.35, 3, "seg", "loss"),
    },
    [
        Arrow("group", "net"),
        Arrow("net", "cam"),
        Arrow("net", "pix"),
        Arrow("net", "nodes"),
        Arrow("net", "head"),
        Arrow("cam", "cls"),
        Arrow("pix", "means", dashed=True),
        Arrow("means", "pgcl", dashed=True),
        Arrow("nodes", "gcn"),
        Arrow("gcn", "sgcl"),
        Arrow("head", "seg"),
        Arrow("masks", "pgcl", dashed=True),
        Arrow("gcn", "masks", dashed=True),
        Arrow("cam", "masks", dashed=True),
        Arrow("masks", "seg", dashed=True),
    ],
    "Two streams contrast cells and classes across images; both shape the pseudo labels, which "
    "also teach the head. A reconstruction from the abstract.",
)


def _tokens(part: str, hidden: str, contrast: str, caption: str) -> Figure:
    """MCC, or ToCo, which differs in what a local view is."""
    boxes = {
        "one": Box(0, 0.5, "view 1\ncrop", "data"),
        "two": Box(0, 1.5, "view 2\nwindow, colours", "data"),
        "local": Box(0, 2.5, part, "data"),
        "vit": Box(1, 0.5, "vision transformer", "net"),
        "vit2": Box(1, 2.5, hidden, "net"),
        "tokens": Box(2, 0, "tokens: CAM,\nauxiliary CAM", "map"),
        "teach": Box(2, 1.25, "class token,\nslow projector", "target"),
        "cls": Box(2, 2.5, "class tokens,\nprojector", "map"),
        "flags": Box(4.4, 0.95, "object or not,\nby the CAM", "target"),
        "dec": Box(3.2, -0.9, "decoder", "net"),
        "aff": Box(3.2, -0.1, "cls, cls_aux, aff", "loss"),
        "seg": Box(4.4, -0.9, "seg, reg", "loss"),
        "mcc": Box(4.4, 2, contrast, "loss"),
    }
    arrows = [
        Arrow("one", "vit"),
        Arrow("two", "vit"),
        Arrow("local", "vit2"),
        Arrow("vit", "tokens"),
        Arrow("vit", "teach", dashed=True),
        Arrow("vit2", "cls"),
        Arrow("tokens", "dec"),
        Arrow("tokens", "aff"),
        Arrow("dec", "seg"),
        Arrow("teach", "mcc", dashed=True),
        Arrow("cls", "mcc"),
        Arrow("flags", "mcc", dashed=True),
        Arrow("tokens", "flags", dashed=True),
    ]
    return Figure(boxes, arrows, caption)


MCC = _tokens(
    "8 random masks\nof the crop's tokens",
    "the same, most tokens\nhidden as keys",
    "mcc: masked parts with an\nobject alike, others unlike",
    "Parts of the image are made by hiding keys in every block; those that show an object shall "
    "look like the image.",
)
TOCO = _tokens(
    "8 small crops around\nuncertain places",
    "the same transformer",
    "ctc: crops with an object\nalike, others unlike",
    "As MCC, with crops for parts (locals: crops).",
)
FIGURES = {
    **{"baseline": BASELINE, "seam": SEAM, "ppc": PPC, "rtc": RTC, "muscle": MUSCLE, "pss": PSS},
    **{"dscnet": DSCNET, "mcc": MCC, "toco": TOCO},
}


def draw(figure: Figure, path: Path) -> None:
    """Write a figure as SVG."""
    columns = [box.column for box in figure.boxes.values()]
    rows = [box.row for box in figure.boxes.values()]
    left, right = min(columns) * COLUMN - WIDE / 2 - 0.2, max(columns) * COLUMN + WIDE / 2 + 0.2
    top, bottom = min(rows) * ROW - HIGH / 2 - 0.15, max(rows) * ROW + HIGH / 2 + 0.85
    width = max(right - left, 9.6)
    canvas = Canvas(figsize=(width, bottom - top))
    axes = canvas.add_axes((0, 0, 1, 1))
    axes.set(xlim=(left, left + width), ylim=(bottom, top))
    axes.axis("off")
    for arrow in figure.arrows:
        _arrow(axes, figure.boxes, arrow)
    for box in figure.boxes.values():
        _box(axes, box.column * COLUMN, box.row * ROW, box)
    _below(axes, left + 0.2, bottom, figure)
    style = {"svg.hashsalt": "wsss", "svg.fonttype": "none", "font.family": "DejaVu Sans"}
    with mpl.rc_context(style):
        canvas.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def _box(axes: Axes, x: float, y: float, box: Box) -> None:
    wide, high = _size(box)
    axes.add_patch(
        FancyBboxPatch(
            (x - wide / 2, y - high / 2),
            *(wide, high),
            boxstyle=f"round,pad=0,rounding_size={0.3 if box.kind == 'loss' else 0.07}",
            facecolor=FILL[box.kind],
            edgecolor=MUTED,
            linestyle="--" if box.kind == "target" else "-",
            linewidth=1.0,
            zorder=2,
        )
    )
    axes.text(x, y, box.text, ha="center", va="center", fontsize=8, color=INK, zorder=3)


def _size(box: Box) -> tuple[float, float]:
    longest = max(map(len, box.text.split("\n")))
    return max(1.2, min(WIDE + 0.15, 0.35 + 0.075 * longest)), HIGH


def _arrow(axes: Axes, boxes: dict[str, Box], arrow: Arrow) -> None:
    start, end = _facing(boxes[arrow.start], boxes[arrow.end])
    axes.add_patch(
        FancyArrowPatch(
            *(start, end),
            arrowstyle="-|>",
            mutation_scale=10,
            shrinkA=1,
            shrinkB=1,
            color=MUTED,
            linestyle="--" if arrow.dashed else "-",
            linewidth=1.1,
            zorder=1,
        )
    )
    if arrow.text:
        x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
        patch = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
        axes.text(x, y, arrow.text, ha="center", va="center", fontsize=7, color=MUTED, bbox=patch)


def _facing(start: Box, end: Box) -> tuple[tuple[float, float], tuple[float, float]]:
    """The middles of the sides of two boxes that face each other."""
    (x, y), (u, v) = ((b.column * COLUMN, b.row * ROW) for b in (start, end))
    (wide, high), (wide2, high2) = _size(start), _size(end)
    if abs(u - x) > (wide + wide2) / 2:
        sign = 1 if u > x else -1
        return (x + sign * wide / 2, y), (u - sign * wide2 / 2, v)
    sign = 1 if v > y else -1
    return (x, y + sign * high / 2), (u, v - sign * high2 / 2)


def _below(axes: Axes, left: float, bottom: float, figure: Figure) -> None:
    """The caption and the meaning of colours."""
    axes.text(left, bottom - 0.62, figure.caption, fontsize=8.5, color=INK, va="center")
    x = left
    for kind, text in LEGEND.items():
        box = FancyBboxPatch(
            (x, bottom - 0.32),
            *(0.26, 0.16),
            boxstyle="round,pad=0,rounding_size=0.04",
            facecolor=FILL[kind],
            edgecolor=MUTED,
            linestyle="--" if kind == "target" else "-",
            linewidth=0.8,
        )
        axes.add_patch(box)
        axes.text(x + 0.34, bottom - 0.24, text, fontsize=7.5, color=MUTED, va="center")
        x += 0.62 + 0.075 * len(text)
    axes.text(x, bottom - 0.24, "dashed arrow: no gradient", fontsize=7.5, color=MUTED, va="center")


def main(folder: Path = FOLDER) -> None:
    """Draw all figures."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in FIGURES.items():
        draw(figure, folder / f"{name}.svg")


if __name__ == "__main__":
    main()
