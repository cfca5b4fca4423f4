"""Configurations that were found valid are not checked again.

To check a method's parameters, its module and with it torch are imported: that takes as long as
all else that Snakemake does before its first job.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

import pydantic

from wsss.config.resolve import Params

_PACKAGE = Path(__file__).parents[1]


def validate_once(params: Params, folder: Path) -> None:
    """Check ``params`` as its ``validate`` does, unless ``folder`` remembers that it was valid.

    An edited value is checked again, and all are after an edit of the code. Raises UserError.
    """
    mark = folder / _key(params)
    if mark.is_file():
        return
    params.validate()
    with suppress(OSError):  # next time, then
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()


def _key(params: Params) -> str:
    """All sources are hashed: parameters of methods have types from anywhere in the package."""
    digest = hashlib.blake2b(pydantic.VERSION.encode(), digest_size=16)
    for source in sorted(_PACKAGE.rglob("*.py")):
        digest.update(source.read_bytes())
    for name in params.base.run.variants:
        digest.update(json.dumps([name, params.resolve(name).model_dump()]).encode())
    return digest.hexdigest()
