"""Checkpoints that others published, brought into the networks of this pipeline.

A layout is one module here that defines ``LAYOUT``: which network the tensors belong to, their
key names, the order of their classes. Nothing else has to know of it.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from wsss.errors import UserError

if TYPE_CHECKING:
    from wsss.models.imports.layout import Layout

_PARTS = ("layout", "keys")
# What is asked for and cannot be had, and why.
UNSUPPORTED = {
    "psa-resnet38": "no layout maps its keys to the backbone wide_resnet38 yet",
    "seam-resnet38": "no layout maps its keys to the backbone wide_resnet38 yet",
    "psa-vgg16": "it needs PSA's dilated VGG-16, which is not among the backbones",
    "irn-resnet50-irn": "the boundary and displacement network is trained here, not imported",
}


def layout_names() -> list[str]:
    """Return the names of all layouts without importing them."""
    modules = (m.name for m in pkgutil.iter_modules(__path__) if m.name not in _PARTS)
    return sorted(name.replace("_", "-") for name in modules)


def check_name(name: str) -> None:
    """Refuse an unknown or unsupported layout with a :class:`UserError`; imports nothing."""
    if name in UNSUPPORTED:
        raise UserError(f"layout {name!r} is not supported: {UNSUPPORTED[name]}")
    if name not in layout_names():
        raise UserError(f"unknown layout {name!r}: known are {', '.join(layout_names())}")


def load_layout(name: str) -> Layout:
    """Import one layout; an unknown or unsupported name is a :class:`UserError`."""
    check_name(name)
    module = importlib.import_module(f"wsss.models.imports.{name.replace('-', '_')}")
    layout: Layout = module.LAYOUT
    return layout
