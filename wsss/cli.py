"""The command ``wsss``: one subcommand a stage, runnable by hand as the workflow runs it."""

from __future__ import annotations

import argparse
import gc
import logging
import sys
from collections.abc import Sequence

from wsss import __version__, interrupt
from wsss.commands import (
    data,
    dvc,
    explain,
    export,
    import_,
    methods,
    plan,
    presets,
    publish,
    stages,
)
from wsss.commands.logs import has_log_file
from wsss.errors import UserError

log = logging.getLogger("wsss")

_EPILOG = """\
A stage reads the artifacts of the stages before it under results/DATASET/VARIANT/seedN and
writes its own there, complete or not at all. `snakemake --cores all` runs them in order.

examples:
  wsss data check                              validate the configured data before hours of work
  wsss manifest && wsss classify               the first two stages of the first variant and seed
  wsss evaluate final --variant supervised     score one artifact
  wsss compare                                 table of everything scored so far
  wsss report                                  one page of everything made so far
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; return the exit code."""
    args = build_parser().parse_args(argv)
    args.argv = list(sys.argv[1:] if argv is None else argv)
    logging.captureWarnings(True)
    try:
        with interrupt.handled():
            return _run(args)
    except UserError as error:
        log.debug("failed", exc_info=True)
        return _fail(f"error: {error}")
    except KeyboardInterrupt as error:
        return _interrupted(error)
    except BrokenPipeError:
        return 0
    except Exception as error:
        if not has_log_file():
            raise
        log.exception("unexpected error")
        return _fail(
            f"error: unexpected {type(error).__name__}: {error} (traceback in the log file)"
        )
    finally:
        # Python visits every object again at exit; with torch loaded that takes a second.
        gc.freeze()


def _fail(message: str) -> int:
    sys.stderr.write(f"{message}\n")
    if has_log_file():  # without any handler, logging would print it a second time
        log.error("%s", message)
    return 1


def _run(args: argparse.Namespace) -> int:
    try:
        return _dispatch(args)
    except UserError:
        raise
    except Exception:
        if stop := interrupt.pending():  # a helper process took the same signal less well
            raise stop from None
        raise


def _interrupted(stop: KeyboardInterrupt) -> int:
    _fail("interrupted: the same command continues")
    return getattr(stop, "code", 130)


def _dispatch(args: argparse.Namespace) -> int:
    # A command with needs_params=False gets None, and reads no configuration.
    params = stages.read_params(args) if getattr(args, "needs_params", True) else None
    return args.handler(args, params) or 0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all subcommands."""
    parser = argparse.ArgumentParser(
        prog="wsss",
        description="Weakly supervised semantic segmentation, stage by stage.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"wsss {__version__}")
    commands = parser.add_subparsers(title="stages", required=True, metavar="COMMAND")
    tools = commands.add_parser("data", help="tools for data sets").add_subparsers(required=True)
    stages.register_check(tools)
    data.register(tools)
    stages.register(commands)
    export.register(commands)
    explain.register(commands)
    stages.register_merge(commands)
    import_.register(commands)
    methods.register(commands)
    presets.register(commands)
    dvc.register(commands)
    publish.register(commands)
    plan.register(commands)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
