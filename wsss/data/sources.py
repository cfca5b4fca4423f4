"""The registry of data sources: a name in ``data.source`` and the module that reads it.

A source module offers ``scan(cfg, data_dir)``, which reads what is there without stopping at
problems, and ``build(cfg, data_dir, processes)``, which returns a manifest or raises UserError.
A further source is one module and one line here.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from wsss.errors import UserError

if TYPE_CHECKING:
    from wsss.config.schema import Data
    from wsss.data.manifest import Manifest
    from wsss.data.scan import Scan

SOURCES = {
    "scenes": "wsss.data.scenes",
    "voc": "wsss.data.voc",
    "folder": "wsss.data.folder",
    "coco": "wsss.data.coco",
}


class Source(Protocol):
    """What a source module offers."""

    def scan(self, cfg: Data, data_dir: Path | None = None) -> Scan:
        """Read what is there; problems go to the scan's findings."""

    def build(self, cfg: Data, data_dir: Path, processes: int = 1, /) -> Manifest:
        """Return the manifest (not yet saved); UserError if anything is wrong."""


def load_source(name: str) -> Source:
    """Import a source's module; an unknown name is a UserError."""
    if name not in SOURCES:
        raise UserError(f"data.source {name!r} is unknown: choose one of {', '.join(SOURCES)}")
    return cast(Source, import_module(SOURCES[name]))


def build(cfg: Data, data_dir: Path, processes: int = 1) -> Manifest:
    """The manifest of the configured data (not yet saved); masks are drawn by ``processes``."""
    return load_source(cfg.source).build(cfg, data_dir, processes)
