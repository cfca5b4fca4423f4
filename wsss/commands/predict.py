"""``wsss predict --weights F --images PATH... --out DIR``: masks of any photos."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from wsss.commands.options import positive
from wsss.errors import UserError
from wsss.inference.limits import LONGEST_SIDE

if TYPE_CHECKING:
    from wsss.config.schema import Compute
    from wsss.inference.folder import Options
    from wsss.inference.settings import Inference
    from wsss.inference.tags import Tags

_OWN = ("weights", "images", "out", "tags", "tags_csv", "scales", "flip", "crf", "batch")


def _scale(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from error
    if not 0 < value <= 8:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 8")
    return value


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the user form needs to the stage's parser."""
    own = parser.add_argument_group(
        "your own photos",
        "No params.yaml is needed. Scales, flip and CRF are those of --params, else of the "
        "results folder that holds the weights, else one plain pass; the options change them.",
    )
    own.add_argument("--weights", type=Path, metavar="FILE", help="segment/weights.safetensors")
    own.add_argument(
        "--images", nargs="+", action="extend", metavar="PATH", help="folders, globs or files"
    )
    own.add_argument("--out", type=Path, metavar="DIR", help="folder of the results")
    tags = own.add_mutually_exclusive_group()
    tags.add_argument(
        "--tags", metavar="A,B", help="the classes all photos may hold; others are ruled out"
    )
    tags.add_argument(
        "--tags-csv", type=Path, metavar="FILE", help="the same a photo: columns image,labels"
    )
    own.add_argument("--scales", type=_scale, nargs="+", metavar="S", help="must contain 1")
    own.add_argument(
        "--flip", action=argparse.BooleanOptionalAction, help="also predict mirrored photos"
    )
    own.add_argument("--no-crf", dest="crf", action="store_false", default=None, help="no CRF")
    own.add_argument("--batch", type=positive, metavar="N", help="photos of one size at a time")
    own.add_argument(
        "--longest-side",
        type=positive,
        default=LONGEST_SIDE,
        metavar="PX",
        help="larger photos are predicted at this size, their masks brought to full size "
        "(default: %(default)s)",
    )
    own.add_argument("--device", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps")
    own.add_argument("--workers", type=int, default=0, metavar="N", help="reading processes")
    own.add_argument(
        "--processes", type=positive, default=1, metavar="N", help="CRF processes (default: 1)"
    )


def wanted(args: argparse.Namespace) -> bool:
    """Whether the user form was called; half of it is a UserError."""
    given = [name for name in _OWN if getattr(args, name) is not None]
    if not given:
        return False
    for name in ("weights", "images", "out"):
        if getattr(args, name) is None:
            raise UserError(
                f"--{given[0].replace('_', '-')} predicts photos and needs --{name}, too"
            )
    return True


def run(args: argparse.Namespace) -> int:
    """Predict photos; 1 if any of them could not be read."""
    from wsss.inference.folder import predict_photos, save_settings
    from wsss.inference.photos import find_photos
    from wsss.inference.predictor import load_predictor
    from wsss.inference.settings import inference, trained

    network = trained(args.weights)
    settings = inference(args.weights, network.meta, args.params or (), args.variant)
    sources = find_photos(args.images, args.out)
    tags = _tags(args, network.classes)
    options = _options(args, settings, network.config.compute)
    predictor = load_predictor(network.config, len(network.classes), args.weights)
    _warn_if_plain(settings)
    failures = predict_photos(
        predictor,
        network.classes,
        sources,
        tags,
        options,
        args.out,
        lambda line: _say(f"error: {line}"),
    )
    facts = {
        "settings": settings.origin,
        "tags_used": tags.given,
        "weights": {k: network.meta[k] for k in ("stage", "code", "seed", "data_hash")},
    }
    save_settings(args.out, options, network.classes, facts)
    _summary(args.out, [source.name for source in sources], len(failures))
    return int(bool(failures))


def _tags(args: argparse.Namespace, classes: tuple[str, ...]) -> Tags:
    from wsss.inference.tags import Tags, parse_tags, read_tags

    if args.tags is not None:
        return Tags(every=parse_tags(args.tags, classes))
    return Tags(rows=read_tags(args.tags_csv, classes) if args.tags_csv else {})


def _options(args: argparse.Namespace, settings: Inference, compute: Compute) -> Options:
    from wsss.config.resolve import validate_section
    from wsss.config.schema import Compute, Predict
    from wsss.inference.folder import Options

    asked = {name: getattr(args, name) for name in ("scales", "flip", "batch")}
    changed = {name: value for name, value in asked.items() if value is not None}
    predict = validate_section(
        Predict, "predict", settings.predict.model_dump() | changed, "options"
    )
    if args.device is not None:
        placed = compute.model_dump() | {"device": args.device}
        compute = validate_section(Compute, "--device", placed, "options")
    crf = None if args.crf is False else settings.crf
    return Options(predict, crf, compute, args.longest_side, args.workers, args.processes)


def _warn_if_plain(settings: Inference) -> None:
    from wsss.inference.settings import PLAIN

    if settings.origin == PLAIN:
        _say(
            "warning: the weights come without scales and CRF: one pass at scale 1, no CRF; give "
            "--params, or make the file with `wsss export --format weights`"
        )


def _summary(out: Path, names: list[str], failed: int) -> None:
    folder = out / "masks"
    known = {f"{name}.png" for name in names}
    old = [
        path for path in folder.rglob("*.png") if path.relative_to(folder).as_posix() not in known
    ]
    lines = [f"{len(names) - failed} of {len(names)} photos predicted: {out / 'classes.csv'}"]
    if failed:
        lines.append(f"{failed} could not be read, see above")
    if old:
        lines.append(f"{len(old)} masks in {folder} are left from earlier runs, such as {old[0]}")
    sys.stdout.write("\n".join(lines) + "\n")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
