"""``wsss report``: the page of a data set's results."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from wsss.cli_help import STAGE_HELP, stage_epilog

if TYPE_CHECKING:
    from wsss.config import Params

    # Generic for type checkers alone.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def register(commands: Commands) -> None:
    """Add the command."""
    summary, reads, writes, more = STAGE_HELP["report"]
    parser = commands.add_parser(
        "report",
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}. {more}",
        epilog=stage_epilog("report", reads, writes),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--params",
        type=Path,
        nargs="+",
        action="extend",
        metavar="FILE",
        help="configuration and overlays, later ones on top (default: params.yaml)",
    )
    parser.add_argument("--log", type=Path, metavar="FILE", help="log file (default: in results)")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the log")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace, params: Params) -> None:
    """Write the page and print its path."""
    from wsss.cli import open_shared
    from wsss.stages import report

    sys.stdout.write(f"{report.run(open_shared(args, params, 'report'), params)}\n")
