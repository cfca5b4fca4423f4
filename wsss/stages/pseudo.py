"""Stage: pseudo masks, what the segmentation network is trained on."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from wsss.atomic import atomic_path
from wsss.context import Context
from wsss.stages.crf import refine
from wsss.stages.refining import crf_params, write_maps


def run(context: Context, out: Path) -> None:
    """Write pseudo masks from walked scores, or from the CRF seeds where nothing refines them."""
    config, manifest = context.config, context.manifest
    if config.refine.method == "none":
        with context.recording(out), atomic_path(out) as temporary:
            shutil.copyfile(context.paths.store("seeds", "crf"), temporary)
        return
    items = manifest.union("train", "seed")
    params = crf_params(config.pseudo.crf_params) if config.pseudo.crf else None
    function = partial(refine, params=params)
    write_maps(context, function, items, context.paths.store("walk", "scores"), [out])
