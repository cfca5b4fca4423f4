"""``wsss data download`` and ``wsss data subset``: getting data, and making less of it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from wsss.commands.options import positive

if TYPE_CHECKING:
    from wsss.config import Params


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the tools to ``wsss data``."""
    _register_download(commands)
    _register_subset(commands)


def _register_download(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "download",
        help="fetch a published data set to a folder of your choice",
        description="Fetches VOC 2012 (2 GB) or SBD (1.4 GB), checks the archive and brings it "
        "into VOC's layout: voc2012 first, then sbd with the same --to. Interrupted, the same "
        "command continues. Nothing else here ever downloads data.",
    )
    command.add_argument("name", choices=("voc2012", "sbd"), help="which data set")
    command.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="folder for archive and data"
    )
    command.add_argument("--url", help="another address of the same archive")
    command.add_argument("--md5", metavar="HEX", help="checksum, where a mirror packed it anew")
    command.set_defaults(handler=_download, needs_params=False)


def _download(args: argparse.Namespace, _params: Params | None) -> None:
    from wsss.data.published import download

    root = download(args.name, args.to, args.url, args.md5)
    sys.stdout.write(f"data.root: {root}\n")


def _register_subset(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "subset",
        help="make a smaller data set in the same layout",
        description="Writes the images of some lists that show one of some classes to another "
        "folder, smaller, with their masks and annotations, in VOC's or COCO's layout as in the "
        "source. Ids of images and classes stay.",
    )
    command.add_argument(
        "--source-root", type=Path, required=True, metavar="DIR", help="a VOC or COCO folder"
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    command.add_argument(
        "--classes",
        type=_names,
        metavar="A,B",
        help="keep images that show any of these classes, with all that they show (default: all)",
    )
    command.add_argument(
        "--lists", type=_names, required=True, metavar="A,B", help="lists to take images from"
    )
    command.add_argument(
        "--longest-side",
        type=positive,
        metavar="PIXELS",
        help="make larger images smaller (default: copy them as they are)",
    )
    command.add_argument(
        "--quality", type=positive, default=85, help="of JPEGs that are made (default: 85)"
    )
    command.add_argument(
        "--limit", type=positive, metavar="N", help="at most the first N images of each list"
    )
    command.add_argument(
        "--lists-from",
        type=Path,
        metavar="DIR",
        help="a folder of text lists that come before the source's of the same name",
    )
    command.add_argument(
        "--sample",
        action="append",
        default=[],
        metavar="NEW=LIST:N[:containing=OTHER]",
        help="a further list of N images of LIST, all of OTHER among them; the same everywhere",
    )
    command.add_argument(
        "--difference",
        action="append",
        default=[],
        metavar="NEW=LIST-OTHER",
        help="a further list: LIST without OTHER",
    )
    command.add_argument(
        "--lists-only",
        action="store_true",
        help="write only the lists of --sample and --difference, as OUT/NAME.txt",
    )
    command.add_argument(
        "--processes", type=positive, default=1, metavar="N", help="processes (default: 1)"
    )
    command.set_defaults(handler=_subset, needs_params=False)


def _names(text: str) -> tuple[str, ...]:
    """Parse ``a,b``."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise argparse.ArgumentTypeError(f"{text!r} names nothing")
    return names


def _subset(args: argparse.Namespace, _params: Params | None) -> None:
    from wsss.data.subset import Choice, Size, make_lists, make_subset

    choice = Choice(
        classes=args.classes,
        lists=args.lists,
        limit=args.limit,
        lists_from=args.lists_from,
        samples=tuple(args.sample),
        differences=tuple(args.difference),
    )
    if args.lists_only:
        counts = make_lists(args.source_root, args.out, choice)
    else:
        size = Size(args.longest_side or sys.maxsize, args.quality)
        counts = make_subset(args.source_root, args.out, choice, size, args.processes)
    sys.stdout.write("".join(f"{name}: {count} images\n" for name, count in counts.items()))
    if not args.lists_only:
        sys.stdout.write(f"data.root: {args.out}\n")
