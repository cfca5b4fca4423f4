"""Whether the raw data is still what the manifest was made from.

Raw data is not copied into DVC: its hash stands in the manifest (``data/dataset.json``), which is
versioned and on which every stage depends.
"""

from __future__ import annotations

from pathlib import Path

from wsss.config import Params
from wsss.data.content import content_hash
from wsss.data.manifest import Manifest
from wsss.errors import UserError
from wsss.paths import Paths


def check_data(params: Params) -> str | None:
    """Read all images and masks and compare their hash with the manifest's.

    Returns None, or in one line why the data could not be looked at. Raises UserError if it is
    other data.
    """
    base = params.base
    root = base.data.root
    if base.data.source != "scenes" and not Path(root or "").is_dir():
        return f"data.root {root} is not on this machine: the raw data was not compared"
    folder = Paths(Path(base.run.results), base.run.dataset).data
    manifest = Manifest.load(folder, Path(root) if root else None)
    found = content_hash(
        manifest.root,
        manifest.items,
        manifest.classes,
        manifest.mask_values,
        manifest.background_values,
        manifest.mask_root,
    )
    if found != manifest.data_hash:
        raise UserError(
            f"the data in {manifest.root} is not what {folder / 'dataset.json'} describes (hash "
            f"{found}, not {manifest.data_hash}): bring it back, or `snakemake --forcerun manifest`"
        )
    return None
