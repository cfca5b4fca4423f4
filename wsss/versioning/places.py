"""Where a key of the configuration is stated: the one place whose edit changes its value.

DVC watches keys of files, Snakemake the values that a variant ends up with. A key is watched where
it is stated last: in the variant's own overlay, in that of a variant it shares from, or at the
top, and of several files in the last that states it. So the same edits reach both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from wsss.config.resolve import VARIANTS, Params
from wsss.config.sharing import SHARE, ancestry
from wsss.errors import UserError

Path: TypeAlias = tuple[str, ...]


class Place(NamedTuple):
    """A key of a file, as DVC addresses it."""

    file: str
    path: Path

    @property
    def key(self) -> str:
        """The path with dots."""
        return ".".join(self.path)


class _Leaf(NamedTuple):
    place: Place
    empty: bool  # an empty mapping, which adds nothing to another one


_Node: TypeAlias = "_Leaf | dict[str, _Node]"


class Places:
    """The places of every key, of the base and of each variant.

    Args:
        raws: what each file holds, in their order, later ones on top.
        params: the same, merged.
    """

    def __init__(self, raws: Mapping[str, Mapping[str, Any]], params: Params) -> None:
        self._raws, self._params = raws, params
        self._base: dict[str, _Node] = {}
        for file, raw in raws.items():
            merged = _over(self._base, _tree(raw, Place(file, ())))
            assert isinstance(merged, dict)
            self._base = merged
        self._resolved: dict[str, dict[str, _Node]] = {}

    def of(self, key: str, variant: str = "") -> list[Place]:
        """Return where the parts of ``key`` are stated, whole sections where they are in one place.

        Raises UserError for a key that no file states, or a variant that DVC cannot address.
        """
        node: _Node = self._tree_of(variant)
        for part in key.split("."):
            if isinstance(node, _Leaf) or part not in node:
                raise UserError(f"{self._params.origin}: nothing states {key!r}")
            node = node[part]
        return sorted(self._collapse(node))

    def _tree_of(self, variant: str) -> dict[str, _Node]:
        if variant not in self._resolved:
            merged: _Node = self._base
            overlays = self._base[VARIANTS]
            chain = ancestry(self._params.variants, variant, self._params.origin) if variant else []
            for name in reversed(chain):
                assert isinstance(overlays, dict)
                top = overlays[name]
                if not isinstance(top, _Leaf):
                    merged = _over(merged, {k: v for k, v in top.items() if k != SHARE})
            assert isinstance(merged, dict)
            self._resolved[variant] = merged
        return self._resolved[variant]

    def _collapse(self, node: _Node) -> list[Place]:
        whole = self._whole(node)
        if whole is not None:
            return [whole]
        assert isinstance(node, dict)
        return [place for child in node.values() for place in self._collapse(child)]

    def _whole(self, node: _Node) -> Place | None:
        """The place that states all of ``node`` and nothing else, if there is one."""
        if isinstance(node, _Leaf):
            return node.place
        parents = set()
        for name, child in node.items():
            place = self._whole(child)
            if place is None or place.path[-1] != name:
                return None
            parents.add(Place(place.file, place.path[:-1]))
        if len(parents) != 1:
            return None
        parent = parents.pop()
        return parent if set(_look_up(self._raws[parent.file], parent.path)) == set(node) else None


def read(files: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return what each file holds."""
    from wsss.config.resolve import read_yaml

    return {file: read_yaml(file) for file in files}


def _tree(raw: Any, place: Place) -> _Node:
    if not isinstance(raw, Mapping) or not raw:
        return _Leaf(place, isinstance(raw, Mapping))
    for key in raw:
        if "." in str(key):
            raise UserError(f"{place.file}: DVC cannot address {key!r}: use a name without a dot")
    return {
        str(key): _tree(value, Place(place.file, (*place.path, str(key))))
        for key, value in raw.items()
    }


def _over(base: _Node, top: _Node) -> _Node:
    """As :func:`wsss.config.resolve.overlay`, of places."""
    if isinstance(base, _Leaf):
        return top
    if isinstance(top, _Leaf):
        return base if top.empty else top
    return base | {k: _over(base[k], v) if k in base else v for k, v in top.items()}


def _look_up(raw: Any, path: Path) -> Any:
    for part in path:
        raw = raw[part]
    return raw
