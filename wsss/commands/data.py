"""``wsss data download`` and ``wsss data subset``: getting data, and making less of it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsss.config import Params


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the tools to ``wsss data``."""
    _register_download(commands)


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
