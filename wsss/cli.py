"""The command ``wsss``: one subcommand a stage, runnable by hand as the workflow runs it."""

from __future__ import annotations

import argparse
import gc
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsss import __version__, interrupt
from wsss.cli_help import EVALUATION_NAMES, STAGE_HELP, stage_epilog
from wsss.commands import data as data_commands
from wsss.commands import explain, export, import_, presets
from wsss.commands import predict as photos
from wsss.errors import UserError

if TYPE_CHECKING:
    from wsss.config import Params
    from wsss.context import Context

log = logging.getLogger("wsss")

# A command with needs_params=False gets None, and reads no configuration.
Handler = Callable[[argparse.Namespace, Any], int | None]

_EPILOG = """\
A stage reads the artifacts of the stages before it under results/DATASET/VARIANT/seedN and
writes its own there, complete or not at all. `snakemake --cores all` runs them in order.

examples:
  wsss data check                              validate the configured data before hours of work
  wsss manifest && wsss classify               the first two stages of the first variant and seed
  wsss evaluate final --variant supervised     score one artifact
  wsss compare                                 table of everything scored so far
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; return the exit code."""
    args = build_parser().parse_args(argv)
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
        if not _has_log_file():
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
    if _has_log_file():  # without any handler, logging would print it a second time
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
    handler: Handler = args.handler
    if not getattr(args, "needs_params", True):
        return handler(args, None) or 0
    return handler(args, _params(args)) or 0


def _params(args: argparse.Namespace) -> Params:
    from wsss.config import load_params

    return load_params(args.params or [Path("params.yaml")])


def _has_log_file() -> bool:
    return any(isinstance(handler, logging.FileHandler) for handler in log.handlers)


class _LogFile(logging.FileHandler):
    """A log that ends where its disk is full: the job itself finds that out, and says it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802
        if isinstance(sys.exc_info()[1], OSError):
            log.removeHandler(self)
            logging.getLogger("py.warnings").removeHandler(self)
            with suppress(OSError):
                self.close()


def _log_to(path: Path, verbose: bool) -> None:
    """Send messages to a file of the job's own, warnings (all, if verbose) to the terminal."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _LogFile(path, mode="w", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write the log file {path}: {error.strerror}") from error
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    console = logging.StreamHandler()
    console.setLevel(logging.INFO if verbose else logging.WARNING)
    console.addFilter(lambda record: record.levelno < logging.ERROR)
    console.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    for logger in (log, logging.getLogger("py.warnings")):
        for handler in logger.handlers:
            handler.close()
        logger.handlers[:] = [file, console]
        logger.setLevel(logging.DEBUG)
        logger.propagate = False


def _context(args: argparse.Namespace, params: Params, stage: str, label: str) -> Context:
    """Resolve one job of one variant and seed, and open its log."""
    from wsss.context import make_context

    run = params.base.run
    variant = args.variant or run.variants[0]
    seed = run.seeds[0] if args.seed is None else args.seed
    context = make_context(params, stage, variant, seed)
    _log_to(args.log or context.paths.log(label), args.verbose)
    log.info("stage %s, variant %s, seed %d, code %s", stage, variant, seed, context.code)
    return context


def _shared_context(args: argparse.Namespace, params: Params, stage: str) -> Context:
    """Resolve a job that all variants share."""
    from wsss.context import make_context

    context = make_context(params, stage, "", 0)
    _log_to(args.log or context.paths.log(stage), args.verbose)
    return context


def _data_check(args: argparse.Namespace, params: Params) -> int:
    from wsss.data.check import check

    context = _shared_context(args, params, "manifest")
    problems = check(context.config.data, context.paths.data)
    errors = sum(problem.severity == "error" for problem in problems)
    lines = [*map(str, problems), f"{len(problems)} kinds of findings, {errors} of them errors"]
    sys.stdout.write("\n".join(lines) + "\n")
    return int(errors > 0)


def _manifest(args: argparse.Namespace, params: Params) -> None:
    from wsss.stages import manifest

    manifest.run(_shared_context(args, params, "manifest"))


def _classify(args: argparse.Namespace, params: Params) -> None:
    from wsss.methods import check_method
    from wsss.stages import classify

    context = _context(args, params, "classify", "classify")
    check_method(params.resolve(context.variant), f"variants.{context.variant}")
    classify.run(context)


def _cam(args: argparse.Namespace, params: Params) -> None:
    from wsss.stages import cam

    context = _context(args, params, "cam", _label("cam", args))
    cam.run(context, _out(context, "cam", "maps", args), *args.shard)


def _seeds(args: argparse.Namespace, params: Params) -> None:
    from wsss.stages import seeds

    stage = f"seeds_{args.kind}"
    context = _context(args, params, stage, _label(stage, args))
    if args.kind == "confident":
        seeds.run_confident(context, _out(context, "seeds", "confident", args), args.shard)
    elif args.kind == "alpha":
        low, high = (_out(context, "seeds", name, args) for name in ("low", "high"))
        seeds.run_alpha(context, low, high, args.shard)
    else:
        seeds.run_label(context, _out(context, "seeds", "crf", args), args.shard)


def _affinity(args: argparse.Namespace, params: Params) -> None:
    from wsss.stages import affinity

    affinity.run(_context(args, params, "affinity", "affinity"))


def _irnet(args: argparse.Namespace, params: Params) -> None:
    from wsss.stages import irnet

    irnet.run(_context(args, params, "irnet", "irnet"))


def _edges(args: argparse.Namespace, params: Params) -> None:
    from wsss.stages import edges

    context = _context(args, params, "edges", _label("edges", args))
    edges.run(context, _out(context, "irnet", "edges", args), *args.shard)


def _walk(args: argparse.Namespace, params: Params) -> None:
    from wsss.stages import walk

    context = _context(args, params, "walk", _label("walk", args))
    walk.run(context, _out(context, "walk", "scores", args), *args.shard)


def _pseudo(args: argparse.Namespace, params: Params) -> None:
    from wsss.stages import pseudo

    context = _context(args, params, "pseudo", "pseudo")
    pseudo.run(context, context.paths.store("pseudo", "masks"))


def _soft(args: argparse.Namespace, params: Params) -> None:
    from wsss.stages import soft

    context = _context(args, params, "soft", "soft")
    soft.run(context, context.paths.store("pseudo", "scores"))


def _segment(args: argparse.Namespace, params: Params) -> None:
    from wsss.stages import segment

    segment.run(_context(args, params, "segment", "segment"))


def _predict(args: argparse.Namespace, _unused: None) -> int:
    if photos.wanted(args):
        if args.log:
            _log_to(args.log, args.verbose)
        return photos.run(args)
    from wsss.stages import predict

    context = _context(args, _params(args), "predict", "predict")
    paths = context.paths
    predict.run(context, paths.store("predict", "scores"), paths.store("predict", "single"))
    return 0


def _crf(args: argparse.Namespace, params: Params) -> None:
    from wsss.stages import crf

    context = _context(args, params, "crf", _label("crf", args))
    crf.run(context, _out(context, "predict", "masks", args), args.shard)


def _merge(args: argparse.Namespace, _params: None) -> None:
    from wsss.artifacts import merge_stores

    merge_stores(args.parts, args.out)


def _evaluate(args: argparse.Namespace, params: Params) -> None:
    from wsss.stages import boxes, scoring
    from wsss.stages.evaluations import stage_of

    context = _context(args, params, stage_of(args.what), f"evaluate_{args.what}")
    if args.what == "boxes":
        boxes.run(context)
    else:
        scoring.run(context, args.what)


def _compare(args: argparse.Namespace, params: Params) -> None:
    from wsss.atomic import together
    from wsss.stages import compare

    run = params.base.run
    context = _shared_context(args, params, "compare")
    with together():
        table = compare.compare(
            context.paths.results,
            run.dataset,
            run.variants,
            run.seeds,
            twin=params.twin,
            owners=params.owners,
        )
        compare.timings(context.paths.results, run.dataset, run.variants, run.seeds)
    sys.stdout.write(table)


def _methods(_args: argparse.Namespace, _params: Params) -> None:
    from wsss.methods import load_method, method_names

    for name in method_names():
        info = load_method(name).info
        sys.stdout.write(f"{name:12} {info.status:15} {', '.join(info.roads):24} {info.paper}\n")


def _label(stage: str, args: argparse.Namespace) -> str:
    shard, shards = args.shard
    return stage if shards == 1 else f"{stage}.{shard}of{shards}"


def _out(context: Context, stage: str, name: str, args: argparse.Namespace) -> Path:
    """Where a stage's store goes: its shard's part if there are several."""
    shard, shards = args.shard
    if shards == 1:
        return context.paths.store(stage, name)
    return context.paths.shard(stage, name, shard, shards)


def _shard(text: str) -> tuple[int, int]:
    """Parse ``0/4``: the first of four shards."""
    first, _, second = text.partition("/")
    try:
        shard, shards = int(first), int(second)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 0/4") from error
    if not 0 <= shard < shards:
        raise argparse.ArgumentTypeError(f"{text!r}: the first number runs from 0 to {shards - 1}")
    return shard, shards


def _seed(text: str) -> int:
    """Parse a seed: 0, 1, 2, ..."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0")
    return int(text)


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

    def add(
        name: str, handler: Handler, job: bool = True, shards: bool = False
    ) -> argparse.ArgumentParser:
        summary, reads, writes, more = STAGE_HELP[name]
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}. {more}".strip(),
            epilog=stage_epilog(name, reads, writes),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        _common(command, job)
        if shards:
            command.add_argument(
                "--shard", type=_shard, default=(0, 1), metavar="I/N", help="work on part I of N"
            )
        command.set_defaults(handler=handler)
        return command

    data = commands.add_parser("data", help="tools for data sets").add_subparsers(required=True)
    check = data.add_parser(
        "check",
        help="validate the configured data",
        description="Lists every problem of the configured data with counts and examples; exits "
        "with 1 if one of them is an error.",
    )
    _common(check, job=False)
    check.set_defaults(handler=_data_check)
    data_commands.register(data)
    add("manifest", _manifest, job=False)
    add("classify", _classify)
    add("cam", _cam, shards=True)
    add("seeds", _seeds, shards=True).add_argument(
        "kind",
        choices=("alpha", "confident", "label"),
        help="alpha: two seeds, of more and of less background, for AffinityNet; "
        "confident: what two label CRFs agree on, for IRNet; "
        "label: CRF of the CAM at its threshold",
    )
    add("affinity", _affinity)
    add("irnet", _irnet)
    add("edges", _edges, shards=True)
    add("walk", _walk, shards=True)
    add("pseudo", _pseudo)
    add("soft", _soft)
    add("segment", _segment)
    prediction = add("predict", _predict)
    photos.add_options(prediction)
    prediction.set_defaults(needs_params=False)
    add("crf", _crf, shards=True)
    add("evaluate", _evaluate).add_argument(
        "what",
        choices=EVALUATION_NAMES,
        help="cam: at its threshold, with a sweep; cam_tune, walk_tune: the threshold that is best "
        "on the tune list; boxes: localisation, MaxBoxAccV2; crf, walk, pseudo: masks of training "
        "images; single, multi, final: predictions at one scale, at several, and after the CRF",
    )
    add("compare", _compare, job=False)
    add("methods", _methods, job=False)
    export.register(commands)
    explain.register(commands)
    merge = commands.add_parser(
        "merge", help="join shards", description="Join the stores of shards, in order."
    )
    merge.add_argument("out", type=Path)
    merge.add_argument("parts", type=Path, nargs="+")
    merge.set_defaults(handler=_merge, needs_params=False)
    import_.register(commands)
    presets.register(commands)
    return parser


def _common(command: argparse.ArgumentParser, job: bool) -> None:
    command.add_argument(
        "--params",
        type=Path,
        nargs="+",
        action="extend",
        metavar="FILE",
        help="configuration and overlays, later ones on top (default: params.yaml)",
    )
    command.add_argument("--log", type=Path, metavar="FILE", help="log file (default: in results)")
    command.add_argument("-v", "--verbose", action="store_true", help="show the log")
    if job:
        command.add_argument("--variant", help="default: the first of run.variants")
        command.add_argument("--seed", type=_seed, help="default: the first of run.seeds")


if __name__ == "__main__":
    raise SystemExit(main())
