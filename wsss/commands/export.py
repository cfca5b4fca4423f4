"""``wsss export STORE --to DIR --format F``: artifacts for other tools."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsss.commands.options import add_params

if TYPE_CHECKING:
    # Generic for type checkers alone.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

FORMATS = ("voc", "coco", "boxes", "weights")
_DESCRIPTION = """\
Unpacks an artifact for other tools. Names and ids come from the data folder of the results that
the artifact lies in; no params.yaml is needed.

  voc      SegmentationClass/ID.png with the data set's own ids and VOC's palette, and a list
  coco     results.json in COCO's results format (RLE, area, score), images.json
  boxes    boxes.csv and boxes.json: id, class, x0, y0, x1, y1, score; x1 and y1 are excluded
  weights  a copy of segment/weights.safetensors that holds its scales and CRF, too

Activations (cam/maps.zip) are cut at --threshold or at the one tuned beside them.
"""


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "export",
        help="unpack an artifact: VOC folder, COCO RLE, boxes",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("store", type=Path, metavar="STORE", help="a store or weights file")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--format", choices=FORMATS, required=True, help="see above")
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="folder of manifest.csv and dataset.json"
    )
    parser.add_argument(
        "--threshold", type=_fraction, metavar="T", help="of activations, in [0, 1]"
    )
    parser.add_argument(
        "--kind", choices=("cams", "scores"), help="what an array store at another place holds"
    )
    parser.add_argument(
        "--components",
        choices=("largest", "all"),
        help="boxes: the largest region of each class (default) or all; coco: all gives a mask a "
        "region instead of one a class",
    )
    add_params(parser, "weights: configuration with the scales and the CRF")
    parser.add_argument("--variant", help="weights: overlay of --params")
    parser.set_defaults(handler=run, needs_params=False)


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from error
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not in [0, 1]")
    return value


def run(args: argparse.Namespace, _params: Any) -> None:
    """Write one artifact in another format."""
    if args.format == "weights":
        from wsss.export.weights import export_weights

        path = export_weights(args.store, args.to, args.params or (), args.variant)
        sys.stdout.write(f"{path}\n")
        return
    from wsss.export.source import open_store

    boxes = args.format == "boxes"
    store = open_store(args.store, args.data_dir, args.threshold, args.kind, boxes)
    every = args.components == "all"
    if args.format == "voc":
        from wsss.export.voc import export_voc

        done = f"{export_voc(store, args.to)} masks"
    elif boxes:
        from wsss.export.boxes import export_boxes

        done = f"{export_boxes(store, args.to, every)} boxes"
    else:
        from wsss.export.coco import export_coco

        done = f"{export_coco(store, args.to, every)} regions"
    cut = "" if store.threshold is None else f", threshold {store.threshold:g}"
    sys.stdout.write(f"{done} of {len(store.ids)} images in {args.to}{cut}\n")
