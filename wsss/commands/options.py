"""Options that several commands have."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsss.config import Params

_PARAMS = "configuration and overlays, later ones on top (default: params.yaml)"


def add_params(parser: argparse._ActionsContainer, text: str = _PARAMS) -> None:
    """Add ``--params FILE...``."""
    parser.add_argument(
        "--params", type=Path, nargs="+", action="extend", metavar="FILE", help=text
    )


def add_job_options(command: argparse.ArgumentParser, job: bool) -> None:
    """Add what every stage has; a ``job`` also has a variant and a seed."""
    add_params(command)
    command.add_argument("--log", type=Path, metavar="FILE", help="log file (default: in results)")
    command.add_argument("-v", "--verbose", action="store_true", help="show the log")
    if job:
        command.add_argument("--variant", help="default: the first of run.variants")
        command.add_argument("--seed", type=seed, help="default: the first of run.seeds")


def add_shard(command: argparse.ArgumentParser) -> None:
    """Add ``--shard I/N``."""
    command.add_argument(
        "--shard", type=shard, default=(0, 1), metavar="I/N", help="work on part I of N"
    )


def shard(text: str) -> tuple[int, int]:
    """Parse ``0/4``: the first of four shards."""
    first, _, second = text.partition("/")
    try:
        number, count = int(first), int(second)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 0/4") from error
    if not 0 <= number < count:
        raise argparse.ArgumentTypeError(f"{text!r}: the first number runs from 0 to {count - 1}")
    return number, count


def seed(text: str) -> int:
    """Parse a seed: 0, 1, 2, ..."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0")
    return int(text)


def positive(text: str) -> int:
    """Parse a number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def chosen_run(args: argparse.Namespace, params: Params) -> tuple[str, int]:
    """Return ``--variant`` and ``--seed``, or the first of the configuration's."""
    run = params.base.run
    return args.variant or run.variants[0], run.seeds[0] if args.seed is None else args.seed
