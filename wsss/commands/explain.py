"""``wsss explain IMAGE --out PNG``: one picture of one image through all stages."""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from wsss.commands.options import add_params, chosen_run, positive, seed
from wsss.errors import UserError
from wsss.pictures.choice import spread

if TYPE_CHECKING:
    from wsss.config import Params
    from wsss.data.manifest import Item, Manifest
    from wsss.pictures.story import Story

    # Generic for type checkers alone.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

ROLES = ("train", "seed", "tune", "val")
_DESCRIPTION = """\
Draws one image through all stages of a variant and seed: the CAM of each of its classes, seeds,
boundary, random walk, CRF seeds, pseudo mask, predictions and, where it is known, ground truth.
Masks show their IoU with ground truth: mean over the image's classes without background. What
does not exist is left out and named below the picture.
"""


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "explain",
        help="draw one image through all stages",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="an id or a file name")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="PATH", help="a PNG; with --count, a folder"
    )
    parser.add_argument(
        "--count", type=positive, metavar="N", help="N images instead, evenly spaced by id"
    )
    parser.add_argument("--role", choices=ROLES, help="with --count: of the list of this role")
    parser.add_argument("--variant", help="default: the first of run.variants")
    parser.add_argument("--seed", type=seed, help="default: the first of run.seeds")
    add_params(parser)
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace, params: Params) -> None:
    """Draw one image or several."""
    if (args.image is None) == (args.count is None):
        raise UserError("explain needs an IMAGE, or --count N instead")
    if args.role and args.count is None:
        raise UserError("--role chooses among the images of --count: give both")
    story = _story(args, params)
    manifest = story.manifest
    if args.image is not None:
        _draw(story, find_item(manifest, args.image), args.out)
        sys.stdout.write(f"{args.out}\n")
        return
    items = manifest.role(args.role) if args.role else list(manifest.items)
    chosen = spread(items, args.count)
    for item in chosen:
        _draw(story, item, args.out / f"{item.id}.png")
    sys.stdout.write(f"{len(chosen)} pictures in {args.out}\n")


def _story(args: argparse.Namespace, params: Params) -> Story:
    from wsss.pictures.opening import open_story

    return open_story(params, *chosen_run(args, params))


def find_item(manifest: Manifest, name: str) -> Item:
    """The image with this id, or path, or file name with or without suffix.

    Raises UserError: none, with the nearest names, or several.
    """
    for item in manifest.items:
        if name in (item.id, item.image):
            return item
    wanted = PurePosixPath(name.replace("\\", "/"))
    matches = [
        item
        for item in manifest.items
        if (file := PurePosixPath(item.image.rpartition("::")[2])).name == wanted.name
        or file.stem == wanted.name
    ]
    if len(matches) == 1:
        return matches[0]
    if matches:
        several = ", ".join(item.id for item in matches[:5])
        raise UserError(f"{name!r} is the name of {len(matches)} images: give an id: {several}")
    near = difflib.get_close_matches(wanted.stem, [item.id for item in manifest.items], 3)
    hint = f"near it are {', '.join(near)}" if near else f"ids are like {manifest.items[0].id!r}"
    raise UserError(f"no image {name!r} on the manifest: {hint}")


def _draw(story: Story, item: Item, out: Path) -> None:
    from wsss.atomic import atomic_path
    from wsss.pictures.panels import sheet
    from wsss.pictures.story import legend_entries

    told = story.tell(item)
    tags = ", ".join(item.labels) or "no tag"
    where = f"{story.paths.variant}, seed {story.paths.seed}"
    heading = f"{item.id}: {tags}  ({where}; on {', '.join(item.splits)})"
    notes = [f"left out: {'; '.join(told.missing)}"] if told.missing else []
    picture = sheet(heading, told.panels, legend_entries(story.manifest, told.shown), notes)
    with atomic_path(out) as temporary:
        picture.save(temporary, "PNG")
