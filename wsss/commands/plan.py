"""``wsss plan`` and ``wsss bench``: what a configuration will cost, and the times that it takes."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsss.commands.options import add_params, positive
from wsss.errors import UserError

if TYPE_CHECKING:
    # Generic for type checkers alone.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_PLAN = """\
Lists the jobs that `snakemake` would run with the same configuration: how many of each rule, what
each does, what it leaves on disk and, with the times that `wsss bench` measured on this machine or
another, how long they take and how much memory they need. Reads the manifest or, where there is
none yet, scans the data set; runs nothing.
"""
_BENCH = """\
Runs every stage of the configured variants on a few made-up images of the data set's size, with
networks that start at random, and writes what a training step and a megapixel of inference cost on
this machine. With --size, --classes and --tags it needs no data set.
"""


def register(commands: Commands) -> None:
    """Add both commands."""
    plan = commands.add_parser(
        "plan",
        help="say what a run will cost: jobs, hours, disk, memory",
        description=_PLAN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_params(plan)
    plan.add_argument("--bench", type=Path, metavar="FILE", help="what `wsss bench` wrote")
    plan.add_argument("--all", action="store_true", help="also jobs whose results are there")
    plan.add_argument("--cores", type=positive, metavar="N", help="of the machine (default: this)")
    plan.add_argument(
        "--gpus", type=int, default=1, metavar="N", help="of the machine (default: 1)"
    )
    plan.add_argument("--format", choices=("table", "json"), default="table", help="default: table")
    plan.set_defaults(handler=run_plan, needs_params=False)
    bench = commands.add_parser(
        "bench",
        help="measure what stages cost on this machine",
        description=_BENCH,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_params(bench)
    bench.add_argument(
        "--out",
        type=Path,
        default=Path("bench.json"),
        metavar="FILE",
        help="default: bench.json",
    )
    bench.add_argument(
        "--size", type=image_size, metavar="HxW", help="of the images (default: the data set's)"
    )
    bench.add_argument("--classes", type=positive, metavar="N", help="default: the data set's")
    bench.add_argument(
        "--tags", type=positive, metavar="N", help="classes an image (default: the data set's)"
    )
    bench.add_argument(
        "--seconds", type=float, default=4.0, help="to measure each task for, about (default: 4)"
    )
    bench.set_defaults(handler=run_bench, needs_params=False)


def image_size(text: str) -> tuple[int, int]:
    """Parse ``375x500``."""
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"{text!r} is not like 375x500")
    return int(height), int(width)


def run_plan(args: argparse.Namespace, _params: Any) -> None:
    """Print the plan."""
    from wsss.config import load_params
    from wsss.paths import Paths
    from wsss.planning.dataset import data_facts
    from wsss.planning.plan import make_plan, plain
    from wsss.planning.rates import read_bench
    from wsss.planning.table import lines
    from wsss.versioning.graph import BASE, jobs

    files = [path.as_posix() for path in args.params or [Path(BASE)]]
    params = load_params(files)
    bench = read_bench(args.bench) if args.bench else None
    run = params.base.run
    facts = data_facts(params.base, Paths(Path(run.results), run.dataset).data)
    plan = make_plan(jobs(files, every=args.all), params, facts, bench)
    cores = args.cores or os.cpu_count() or 1
    if args.gpus < 0:
        raise UserError(f"--gpus is {args.gpus}: give 0 or more")
    on_gpu = bench is not None and bench.file.device != "cpu"
    gpus = args.gpus if on_gpu else 0
    if args.format == "json":
        from wsss.artifacts import json_bytes

        sys.stdout.write(json_bytes(plain(plan, cores, gpus)).decode())
    else:
        sys.stdout.write("\n".join(lines(plan, cores, gpus)) + "\n")


def run_bench(args: argparse.Namespace, _params: Any) -> None:
    """Measure, and write the file."""
    from wsss.bench.run import bench
    from wsss.bench.subject import Subject
    from wsss.config import load_params
    from wsss.paths import Paths
    from wsss.planning.dataset import data_facts

    params = load_params(args.params or [Path("params.yaml")])
    shape, classes, tags = args.size, args.classes, args.tags
    facts = None
    if None in (shape, classes, tags):
        run = params.base.run
        facts = data_facts(params.base, Paths(Path(run.results), run.dataset).data)
        shape, classes = shape or facts.shape, classes or facts.classes
        tags = tags or min(classes, max(1, round(facts.groups["walked"].tags)))
    if tags > classes:
        raise UserError(f"--tags is {tags}, but there are {classes} classes")
    photos = facts if args.size is None else None
    bench(params, Subject(shape, classes, tags), photos, args.out, args.seconds)
