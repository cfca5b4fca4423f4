"""The stages of the pipeline as commands: resolve the job, open its log, call the stage."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsss.cli_help import EVALUATION_NAMES, STAGE_HELP, stage_epilog
from wsss.commands import predict as photos
from wsss.commands.logs import log_to
from wsss.commands.options import add_job_options, add_shard, chosen_run
from wsss.commands.training import run_training

if TYPE_CHECKING:
    from wsss.config import Params
    from wsss.context import Context

    # Generic for type checkers alone.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

log = logging.getLogger("wsss")

Handler = Callable[[argparse.Namespace, Any], int | None]


def read_params(args: argparse.Namespace) -> Params:
    """Read the configuration that ``--params`` names."""
    from wsss.config import load_params

    return load_params(args.params or [Path("params.yaml")])


def _context(args: argparse.Namespace, params: Params, stage: str, label: str) -> Context:
    """Resolve one job of one variant and seed, and open its log."""
    from wsss.context import make_context

    variant, seed = chosen_run(args, params)
    context = make_context(params, stage, variant, seed)
    log_to(args.log or context.paths.log(label), args.verbose)
    log.info("stage %s, variant %s, seed %d, code %s", stage, variant, seed, context.code)
    return context


def _shared_context(args: argparse.Namespace, params: Params, stage: str) -> Context:
    """Resolve a job that all variants share."""
    from wsss.context import make_context

    context = make_context(params, stage, "", 0)
    log_to(args.log or context.paths.log(stage), args.verbose)
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


def _classify(args: argparse.Namespace, params: Params) -> int:
    from wsss.methods import check_method
    from wsss.stages import classify

    context = _context(args, params, "classify", "classify")
    check_method(params.resolve(context.variant), f"variants.{context.variant}")
    return run_training(context, classify.run, args.argv)


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


def _affinity(args: argparse.Namespace, params: Params) -> int:
    from wsss.stages import affinity

    context = _context(args, params, "affinity", "affinity")
    return run_training(context, affinity.run, args.argv)


def _irnet(args: argparse.Namespace, params: Params) -> int:
    from wsss.stages import irnet

    return run_training(_context(args, params, "irnet", "irnet"), irnet.run, args.argv)


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


def _segment(args: argparse.Namespace, params: Params) -> int:
    from wsss.stages import segment

    return run_training(_context(args, params, "segment", "segment"), segment.run, args.argv)


def _predict(args: argparse.Namespace, _unused: None) -> int:
    if photos.wanted(args):
        if args.log:
            log_to(args.log, args.verbose)
        return photos.run(args)
    from wsss.stages import predict

    context = _context(args, read_params(args), "predict", _label("predict", args))
    scores, single = (_out(context, "predict", name, args) for name in ("scores", "single"))
    predict.run(context, scores, single, *args.shard)
    return 0


def _crf(args: argparse.Namespace, params: Params) -> None:
    from wsss.stages import crf

    context = _context(args, params, "crf", _label("crf", args))
    crf.run(context, _out(context, "predict", "masks", args), args.shard)


def _merge(args: argparse.Namespace, _params: None) -> None:
    from wsss.artifacts import merge_stores

    merge_stores(args.parts, args.out)


def _evaluate(args: argparse.Namespace, params: Params) -> None:
    from wsss.stages import boxes, evaluate
    from wsss.stages.evaluations import stage_of

    context = _context(args, params, stage_of(args.what), f"evaluate_{args.what}")
    if args.what == "boxes":
        boxes.run(context)
    else:
        evaluate.run(context, args.what)


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
        compare.timings(context.paths.results, run.dataset, run.variants, run.seeds, params)
    sys.stdout.write(table)


def _report(args: argparse.Namespace, params: Params) -> None:
    from wsss.stages import report

    context = _shared_context(args, params, "report")
    sys.stdout.write(f"{report.run(context, params)}\n")


def _label(stage: str, args: argparse.Namespace) -> str:
    shard, shards = args.shard
    return stage if shards == 1 else f"{stage}.{shard}of{shards}"


def _out(context: Context, stage: str, name: str, args: argparse.Namespace) -> Path:
    """Where a stage's store goes: its shard's part if there are several."""
    shard, shards = args.shard
    if shards == 1:
        return context.paths.store(stage, name)
    return context.paths.shard(stage, name, shard, shards)


def _add(
    commands: Commands, name: str, handler: Handler, job: bool = True
) -> argparse.ArgumentParser:
    summary, reads, writes, more = STAGE_HELP[name]
    command = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}. {more}".strip(),
        epilog=stage_epilog(name, reads, writes),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_job_options(command, job)
    command.set_defaults(handler=handler)
    return command


# In the order of the pipeline.
_JOBS: dict[str, Handler] = {
    "classify": _classify,
    "cam": _cam,
    "seeds": _seeds,
    "affinity": _affinity,
    "irnet": _irnet,
    "edges": _edges,
    "walk": _walk,
    "pseudo": _pseudo,
    "soft": _soft,
    "segment": _segment,
    "predict": _predict,
    "crf": _crf,
    "evaluate": _evaluate,
}
_SHARDED = ("cam", "seeds", "edges", "walk", "predict", "crf")


def register(commands: Commands) -> None:
    """Add a command for each stage."""
    _add(commands, "manifest", _manifest, job=False)
    jobs = {name: _add(commands, name, handler) for name, handler in _JOBS.items()}
    for name in _SHARDED:
        add_shard(jobs[name])
    jobs["seeds"].add_argument(
        "kind",
        choices=("alpha", "confident", "label"),
        help="alpha: two seeds, of more and of less background, for AffinityNet; "
        "confident: what two label CRFs agree on, for IRNet; "
        "label: CRF of the CAM at its threshold",
    )
    photos.add_options(jobs["predict"])
    jobs["predict"].set_defaults(needs_params=False)
    jobs["evaluate"].add_argument(
        "what",
        choices=EVALUATION_NAMES,
        help="cam: at its threshold, with a sweep; cam_tune, walk_tune: the threshold that is best "
        "on the tune list; boxes: localisation, MaxBoxAccV2; crf, walk, pseudo: masks of training "
        "images; single, multi, final: predictions at one scale, at several, and after the CRF",
    )
    _add(commands, "compare", _compare, job=False)
    _add(commands, "report", _report, job=False)


def register_merge(commands: Commands) -> None:
    """Add the command that joins shards."""
    merge = commands.add_parser(
        "merge", help="join shards", description="Join the stores of shards, in order."
    )
    merge.add_argument("out", type=Path)
    merge.add_argument("parts", type=Path, nargs="+")
    merge.set_defaults(handler=_merge, needs_params=False)


def register_check(data: Commands) -> None:
    """Add ``wsss data check``."""
    check = data.add_parser(
        "check",
        help="validate the configured data",
        description="Lists every problem of the configured data with counts and examples; exits "
        "with 1 if one of them is an error.",
    )
    add_job_options(check, job=False)
    check.set_defaults(handler=_data_check)
