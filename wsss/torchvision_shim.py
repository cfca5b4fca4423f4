"""Make ``import torchvision`` work beside a CPU-only torch; import this module before it.

torchvision's wheel on the package index registers its compiled operators against CUDA libraries.
Beside a CPU build of torch those do not load, and the import stops at the first operator whose
schema it cannot find. The operators themselves (``nms``) are not used here, so declaring their
schemas is enough. On builds where the plain import works nothing is declared.
"""

from __future__ import annotations

import sys

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library: torch.library.Library | None = None


def _import() -> None:
    global _library
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        _library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for schema in _SCHEMAS:
            _library.define(schema)  # type: ignore[no-untyped-call]
        import torchvision  # noqa: F401


_import()
