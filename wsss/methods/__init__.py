"""The methods: one module a paper, found by its name.

A module ``wsss/methods/NAME.py`` defines ``METHOD``, a subclass of
:class:`wsss.methods.base.Method`. Nothing else has to know of it.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from pydantic import ValidationError

from wsss.errors import UserError

if TYPE_CHECKING:
    from wsss.config.schema import Config
    from wsss.methods.base import Method


def method_names() -> list[str]:
    """Return the names of all methods without importing them."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "base")


def load_method(name: str) -> type[Method]:
    """Import one method's class; an unknown name is a :class:`UserError`."""
    if name not in method_names():
        raise UserError(f"method.name is {name!r}: known are {', '.join(method_names())}")
    method: type[Method] = importlib.import_module(f"wsss.methods.{name}").METHOD
    return method


def check_method(config: Config, where: str) -> None:
    """Check a variant's method parameters, maps and road before any job starts."""
    method = load_method(config.method.name)
    try:
        method.Params.model_validate(config.method.params)
    except ValidationError as error:
        detail = error.errors()[0]
        key = ".".join(["method.params", *map(str, detail["loc"])])
        allowed = ", ".join(sorted(method.Params.model_fields)) or "none"
        raise UserError(
            f"{where}: {key} is {detail['input']!r}: {detail['msg']} (parameters of "
            f"{config.method.name}: {allowed})"
        ) from error
    if config.cam.maps is not None and config.cam.maps not in method.seed_kinds:
        kinds = ", ".join(["null", *method.seed_kinds])
        raise UserError(
            f"{where}: cam.maps is {config.cam.maps!r}: method {config.method.name!r} has {kinds}"
        )
    single = config.road == "single-stage"
    if single and config.predict.combine == "max_logits" and method.gives_scores():
        raise UserError(
            f"{where}: predict.combine is 'max_logits' but scores of method "
            f"{config.method.name!r} are no softmax of logits: set it to mean"
        )
    if config.road != "supervised" and config.road not in method.info.roads:
        raise UserError(
            f"{where}: road is {config.road!r} but method {config.method.name!r} goes "
            f"{' or '.join(method.info.roads)}"
        )
