"""``wsss import``: bring a published checkpoint into this system's weights."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from wsss.commands.options import add_params
from wsss.errors import UserError

if TYPE_CHECKING:
    from wsss.config import Config, Params
    from wsss.models.imports.layout import Layout

_DESCRIPTION = """\
Translates a checkpoint of plain tensors into weights.safetensors and prints the configuration
with which the workflow scores it: a variant whose stage imports the file instead of training.
Every key must be known and every shape fit. `--list` shows the layouts.
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    command = commands.add_parser(
        "import",
        help="translate a published checkpoint",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("checkpoint", type=Path, nargs="?", help=".pth, .pt or .safetensors")
    command.add_argument("--layout", metavar="NAME", help="whose key names it has")
    command.add_argument(
        "--classes", metavar="NAMES", help="its classes in its order, comma-separated"
    )
    command.add_argument("--out", type=Path, metavar="FILE", help="also write the weights here")
    command.add_argument("--list", action="store_true", help="list the layouts")
    add_params(command)
    command.set_defaults(handler=run, needs_params=False)


def run(args: argparse.Namespace, _params: Params | None) -> None:
    """List the layouts, or check and translate one checkpoint."""
    if args.list:
        sys.stdout.write(listing())
        return
    if args.checkpoint is None or args.layout is None:
        raise UserError("wsss import needs a checkpoint and --layout NAME, or --list")
    order = args.classes.split(",") if args.classes else None
    sys.stdout.write(convert(args.checkpoint, args.layout, order, args.out, args.params))


def listing() -> str:
    """Return a line a layout, and what is not supported and why."""
    from wsss.models.imports import UNSUPPORTED, layout_names, load_layout

    layouts = {name: load_layout(name) for name in layout_names()}
    lines = [f"{name:20} {x.stage:9} {x.title}; {x.source}" for name, x in layouts.items()]
    lines += [f"{name:20} not supported: {reason}" for name, reason in UNSUPPORTED.items()]
    return "\n".join(lines) + "\n"


def convert(
    checkpoint: Path,
    name: str,
    order: list[str] | None = None,
    out: Path | None = None,
    params: list[Path] | None = None,
) -> str:
    """Check a checkpoint against its layout, write it to ``out``, return the overlay to score it.

    Args:
        order: the checkpoint's classes where they are not the layout's.
        params: configuration that the written network's description starts from.

    Raises:
        UserError: the file does not fit the layout, or ``out`` cannot be written.
    """
    from wsss.artifacts import save_weights
    from wsss.config import load_params, stage_params
    from wsss.config.resolve import overlay, validate
    from wsss.models.imports import load_layout
    from wsss.models.imports.layout import fill

    layout = load_layout(name)
    classes = tuple(order or layout.classes)
    files = params or [Path("params.yaml")]
    raw = load_params(files).raw
    sections = {key: value for key, value in raw.items() if key != "variants"}
    facts = {"file": str(checkpoint), "layout": name, "classes": order}
    settings = overlay(layout.settings, {layout.stage: {"checkpoint": facts}})
    config = validate(overlay(sections, settings), " + ".join(map(str, files)))
    whole, network = _networks(config, layout, len(classes))
    imported = fill(network, checkpoint, name, classes, order)
    if out is not None:
        meta: dict[str, Any] = {
            "stage": layout.stage,
            "params": stage_params(config, layout.stage),
            "classes": list(classes),
            "imported": imported,
        }
        save_weights(out, whole.state_dict(), meta)
    variant = overlay(settings, layout.protocol)
    text = yaml.safe_dump(
        {"run": {"variants": [name]}, "variants": {name: variant}},
        sort_keys=False,
        default_flow_style=None,
    )
    return f"# {layout.title}: lay this over params.yaml and a preset of your data.\n{text}"


def _networks(config: Config, layout: Layout, classes: int) -> tuple[Any, Any]:
    """Return what the stage saves and the part of it that the layout describes."""
    from wsss.networks.method import build_method
    from wsss.networks.segmenter import build_segmenter
    from wsss.tasks.segmentation import SegmentationTask

    if layout.stage == "classify":
        method = build_method(config, classes, False)
        return method, method
    task = SegmentationTask(build_segmenter(config, classes + 1, False))
    return task, task.network
