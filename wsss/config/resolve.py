"""From YAML files to validated variants: the only resolver."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from wsss.config.schema import Config
from wsss.config.sharing import SHARE, ancestry, check_shared, owners, share_of
from wsss.errors import UserError

VARIANTS = "variants"
# What a variant has in common with its upper bound.
_TWIN_KEYS = ("backbone", "segment")
Part = TypeVar("Part", bound=BaseModel)


def overlay(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``top`` laid over it: mappings merge, everything else replaces."""
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = overlay(below, value) if both else value  # type: ignore[arg-type]
    return merged


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read one YAML mapping; errors name the file and line."""
    try:
        value = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"configuration file {path} does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"configuration file {path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold a mapping of sections, not a {type(value).__name__}")
    return value


@cache
def _keys_at(location: tuple[str, ...]) -> list[str]:
    model: Any = Config
    for part in location:
        field = model.model_fields.get(part)
        if field is None or not hasattr(field.annotation, "model_fields"):
            return []
        model = field.annotation
    return sorted(model.model_fields)


def _explain(detail: ErrorDetails) -> str:
    location = tuple(str(part) for part in detail["loc"])
    # Pydantic appends the tried union member to the location; it is no key of the user's.
    key = ".".join(part for part in location if not _is_type_tag(part))
    kind, value = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        allowed = _keys_at(location[:-1])
        near = difflib.get_close_matches(location[-1], allowed, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"unknown key {key!r} (value {value!r}): {hint}allowed are {', '.join(allowed)}"
    if kind == "missing":
        return f"missing key {key!r}: params.yaml must state every key"
    message = detail["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key} is {value!r}: {message[0].lower()}{message[1:]}"


def _is_type_tag(part: str) -> bool:
    return part in {"str", "int", "float", "bool"} or "[" in part


def validate(raw: Mapping[str, Any], where: str) -> Config:
    """Check a resolved mapping; the first problem becomes one line that names the key."""
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        details = error.errors()
        # A misspelt key also makes the right one "missing": the misspelling is the news.
        details.sort(key=lambda detail: detail["type"] == "missing")
        first = _explain(details[0])
        more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
        raise UserError(f"{where}: {first}{more}") from error


def validate_section(model: type[Part], name: str, raw: Any, where: str) -> Part:
    """Check one section by itself, ``name`` its key; otherwise as :func:`validate`."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        details = [{**detail, "loc": (name, *detail["loc"])} for detail in error.errors()]
        details.sort(key=lambda detail: detail["type"] == "missing")
        raise UserError(f"{where}: {_explain(cast(ErrorDetails, details[0]))}") from error


def lay_over(variants: Mapping[str, Any], name: str, origin: str) -> Any:
    """Return a variant's differences, laid over those of the variants it shares from.

    An overlay that is no mapping is returned as it is, for the caller to refuse.
    """
    merged: Any = {}
    for current in reversed(ancestry(variants, name, origin)):
        top = variants[current] or {}
        if not isinstance(top, Mapping):
            return top
        merged = overlay(merged, {key: value for key, value in top.items() if key != SHARE})
    return merged


class Params:
    """The base configuration and its variants.

    Args:
        raw: a mapping like ``params.yaml``: all sections plus ``variants``, a mapping from a
            variant's name to the overlay that states its differences.
        origin: what error messages call it.
    """

    def __init__(self, raw: Mapping[str, Any], origin: str = "params.yaml") -> None:
        self.raw = dict(raw)
        self.origin = origin
        variants = self.raw.get(VARIANTS)
        if not isinstance(variants, Mapping) or not variants:
            raise UserError(f"{origin}: 'variants' must map names to overlays")
        self.variants: dict[str, Any] = dict(variants)
        self._resolved: dict[str, Config] = {}

    @property
    def base(self) -> Config:
        """The configuration that every variant starts from."""
        return self._resolve("", {})

    def resolve(self, variant: str) -> Config:
        """Return one variant's full, validated configuration."""
        if variant not in self.variants:
            near = difflib.get_close_matches(variant, self.variants, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UserError(
                f"{self.origin}: unknown variant {variant!r}: {hint}"
                f"defined are {', '.join(sorted(self.variants))}"
            )
        return self._resolve(variant, self._overlay(variant))

    def owners(self, variant: str) -> dict[str, str]:
        """Return which other variant holds each folder and evaluation that ``variant`` shares."""
        return owners(self.variants, variant, self.origin) if variant else {}

    def twin(self, variant: str) -> str | None:
        """Return the supervised variant with the same backbone and segmentation network.

        Reads the overlays as they are written, so that it also serves where the data is absent.
        """
        mine = self._network(variant)
        for name in self.raw["run"]["variants"]:
            other = self._network(name)
            if other["road"] == "supervised" and all(other[k] == mine[k] for k in _TWIN_KEYS):
                return str(name)
        return None

    def _network(self, variant: str) -> dict[str, Any]:
        merged = overlay(self.raw, self._overlay(variant))
        return {key: merged.get(key) for key in ("road", *_TWIN_KEYS)}

    def _overlay(self, variant: str) -> Any:
        return lay_over(self.variants, variant, self.origin)

    def _resolve(self, variant: str, top: Any) -> Config:
        if variant not in self._resolved:
            where = f"{self.origin}, variants.{variant}" if variant else self.origin
            if not isinstance(top, Mapping):
                raise UserError(f"{where} is {top!r}: an overlay is a mapping of sections")
            sections = {key: value for key, value in self.raw.items() if key != VARIANTS}
            for fixed in {"run", "data"} & set(top):
                raise UserError(f"{where}: {fixed!r} is shared by all variants; set it at the top")
            self._resolved[variant] = validate(overlay(sections, top), where)
            share = share_of(self.variants.get(variant), where) if variant else None
            if share:
                check_shared(self._resolved[variant], self.resolve(share.source), share, where)
        return self._resolved[variant]

    def validate(self) -> None:
        """Check every variant that ``run.variants`` names, its method's parameters included.

        Imports the methods and with them torch; stages that need no network do not call this.
        """
        from wsss.methods import check_method

        for name in self.base.run.variants:
            check_method(self.resolve(name), f"{self.origin}, variants.{name}")


def load_params(paths: Sequence[Path | str]) -> Params:
    """Read ``params.yaml`` and overlays, later ones on top."""
    merged: dict[str, Any] = {}
    for path in paths:
        merged = overlay(merged, read_yaml(path))
    return Params(merged, " + ".join(str(path) for path in paths))
