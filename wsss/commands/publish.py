"""``wsss publish``: bring MLflow up to date with the results."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from typing import TYPE_CHECKING

from wsss.commands.options import add_params, chosen_run, seed
from wsss.errors import UserError

if TYPE_CHECKING:
    from wsss.config import Params

    # Generic for type checkers alone.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

log = logging.getLogger(__name__)
_DESCRIPTION = """\
Writes what lies under results/DATASET to MLflow: an experiment a data set, a run a variant and
seed, a run below it for each stage. What is there already is left alone, so that a second call
changes nothing and a lost store is filled again. The store is that of MLFLOW_TRACKING_URI or of
tracking.uri.
"""


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "publish",
        help="bring MLflow up to date with the results",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_params(parser)
    parser.add_argument(
        "--auto",
        action="store_true",
        help="as a workflow does when it ends: a store that cannot be used is a warning",
    )
    parser.add_argument(
        "--register", metavar="NAME", help="also register the final network as a model"
    )
    parser.add_argument("--variant", help="of --register; default: the first of run.variants")
    parser.add_argument("--seed", type=seed, help="of --register; default: the first of run.seeds")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace, params: Params) -> int:
    """Publish; with ``--auto`` never a failure."""
    if args.auto:
        return _automatic(params)
    if args.register is None and (args.variant is not None or args.seed is not None):
        raise UserError("--variant and --seed choose the network of --register: give that, too")
    _publish(params)
    if args.register is not None:
        _register(args, params)
    return 0


def _automatic(params: Params) -> int:
    from wsss.tracking.store import wanted

    if not wanted(params.base.tracking):
        return 0
    try:
        _publish(params)
    except UserError as error:
        _say(f"warning: not published: {error}")
    except Exception as error:
        # Whatever is wrong with telling of results, the results are there.
        log.debug("publishing failed", exc_info=True)
        _say(
            f"warning: not published: unexpected {type(error).__name__}: {error}: "
            "`wsss publish` shows more"
        )
    return 0


def _publish(params: Params) -> None:
    from wsss.tracking.publish import publish

    began = time.monotonic()
    done = publish(params)
    for note in done.notes:
        _say(f"note: {note}")
    changes = [
        f"{count} {what}"
        for count, what in (
            (done.written, "written"),
            (done.removed, "removed"),
            (done.updated, "updated"),
        )
        if count
    ]
    summary = ", ".join(changes) or "nothing to do"
    seconds = time.monotonic() - began
    sys.stdout.write(f"mlflow: {done.runs} runs, {summary} ({seconds:.0f} s): {done.uri}\n")


def _register(args: argparse.Namespace, params: Params) -> None:
    from wsss.tracking.registry import register_network

    variant, number = chosen_run(args, params)
    version, new = register_network(params, variant, number, args.register)
    sys.stdout.write(
        f"model {args.register}, version {version}{'' if new else ' (registered before)'}: "
        f"{variant}, seed {number}\n"
    )


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
