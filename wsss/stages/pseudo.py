"""Stage: pseudo masks, what the segmentation network is trained on."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from wsss.artifacts import ArrayStore, atomic_path
from wsss.context import Context
from wsss.stages.crf import refine
from wsss.stages.refining import crf_params, jobs, write_maps


def run(context: Context, out: Path) -> None:
    """Write pseudo masks from walked scores, or from the CRF seeds where nothing refines them."""
    config, manifest = context.config, context.manifest
    with context.recording(out):
        if config.refine.method == "none":
            with atomic_path(out) as temporary:
                shutil.copyfile(context.paths.store("seeds", "crf"), temporary)
            return
        items = manifest.union("train", "seed")
        store = ArrayStore(context.paths.store("walk", "scores"))
        params = crf_params(config.pseudo.crf_params) if config.pseudo.crf else None
        work = jobs(manifest, items, store)
        function = partial(refine, params=params)
        write_maps(function, work, len(items), [out], config.resources.processes, "pseudo")
