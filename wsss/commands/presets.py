"""``wsss presets``: the recipes and data sets that this system comes with."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsss.config import Params

FOLDER = Path("workflow/presets")


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    command = commands.add_parser(
        "presets",
        help="list the presets: recipes of papers, data sets",
        description="Lists the overlays that lie under workflow/presets: what they are, the "
        "published score, and whether this system has run them.",
    )
    command.add_argument("--folder", type=Path, default=FOLDER, help=f"default: {FOLDER}")
    command.set_defaults(handler=run, needs_params=False)


def run(args: argparse.Namespace, _params: Params | None) -> None:
    """Print the table."""
    from wsss.config.presets import read_presets, table

    sys.stdout.write("\n".join(table(read_presets(args.folder))) + "\n")
