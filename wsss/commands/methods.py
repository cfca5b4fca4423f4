"""``wsss methods``: what is implemented, from which paper, of which parts and parameters."""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsss.config import Params
    from wsss.methods.base import Configuration, Method

PAGES = Path("docs/methods")
_DEVIATIONS = "Deviations"
_WIDTH = 100


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    command = commands.add_parser(
        "methods",
        help="list the methods, or describe one",
        description="Lists the implemented methods: how faithful they are, the roads they take, "
        "the terms of their losses, their papers. With a name: what one does, its published "
        "scores, terms, parameters with their defaults and sources, and how it deviates.",
    )
    command.add_argument("name", nargs="?", help="describe this one")
    command.set_defaults(handler=run, needs_params=False)


def run(args: argparse.Namespace, _params: Params | None) -> None:
    """Print the table or one method."""
    lines = overview() if args.name is None else description(args.name)
    sys.stdout.write("\n".join(lines) + "\n")


def overview() -> list[str]:
    """Return two lines a method: status, roads and terms; its paper. Papers that a method covers
    by its parameters follow it, with these."""
    from wsss.methods import load_method, method_names

    rows, papers = [("method", "status", "roads", "terms of the loss")], []
    for name in method_names():
        info = load_method(name).info
        rest = (info.status, ", ".join(info.roads), " ".join(info.terms))
        rows.append((name, *rest))
        papers.append([info.paper])
        for other, known in info.configurations.items():
            rows.append((other, *rest))
            papers.append([known.paper, _settings(name, known)])
    heading, *lines = _columns(rows)
    indent = " " * (max(len(row[0]) for row in rows) + 2)
    wide = _terminal()
    blocks = []
    for line, texts in zip(lines, papers, strict=True):
        blocks += [line, *(part for text in texts for part in _wrap(text, wide, indent))]
    return [heading, *blocks, "", "wsss methods NAME: scores, parameters and deviations of one"]


def description(name: str) -> list[str]:
    """Return what there is to know of one method, or of a paper that one covers by its
    parameters; an unknown name is a UserError."""
    from wsss.methods import load_method

    name, known = _find(name)
    method = load_method(name)
    info, text = method.info, (importlib.import_module(method.__module__).__doc__ or "").strip()
    what, found, deviations = text.partition(_DEVIATIONS)
    page = PAGES / f"{name}.md"
    return [
        f"{known.title if known else info.title}: {info.status}",
        *_wrapped(
            [
                ("paper", known.paper if known else info.paper),
                *([("method", _settings(name, known))] if known else []),
                ("roads", ", ".join(info.roads)),
                ("seeds", _seeds(method)),
                ("source", f"wsss/methods/{name}.py"),
                *([("page", page.as_posix())] if page.is_file() else []),
            ]
        ),
        "",
        *what.strip().splitlines(),
        "",
        "Published mIoU",
        *_wrapped(list(info.expected.items()) or [("unknown", "")]),
        "",
        "Terms of the loss",
        *_wrapped(list(info.terms.items())),
        "",
        "Parameters (method.params)",
        *_parameters(method, known.params if known else {}),
        "",
        *f"{found}{deviations}".splitlines(),
    ]


def _seeds(method: type[Method]) -> str:
    kinds = ", ".join(method.seed_kinds)
    return f"{kinds} (cam.maps; the first by default)" if kinds else "its CAMs"


def _find(name: str) -> tuple[str, Configuration | None]:
    """The method of that name, or the one that has a configuration of that name."""
    from wsss.errors import UserError
    from wsss.methods import load_method, method_names

    methods = method_names()
    if name in methods:
        return name, None
    others = {
        other: (owner, known)
        for owner in methods
        for other, known in load_method(owner).info.configurations.items()
    }
    if name not in others:
        raise UserError(
            f"{name!r} is no method: known are {', '.join(sorted([*methods, *others]))}"
        )
    return others[name]


def _settings(name: str, known: Configuration) -> str:
    values = ", ".join(f"{key}: {_plain(value)}" for key, value in known.params.items())
    return f"{name} with {values}"


def _parameters(method: type[Method], params: Mapping[str, Any]) -> Iterable[str]:
    from wsss.commands.parameters import meanings

    known = meanings(method.Params)
    rows, before = [], ""
    for name, field in method.Params.model_fields.items():
        meaning = known.get(name, "")
        shown = "as above" if meaning and meaning == before else meaning
        value = params.get(name, field.get_default(call_default_factory=True))
        rows.append((name, _plain(value), shown))
        before = meaning
    return _wrapped(rows) if rows else ["  none"]


def _plain(value: Any) -> str:
    """A default as params.yaml writes it."""
    plain = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return plain[value]
    return f"{value:g}" if isinstance(value, float) else str(value).replace("'", "")


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    return [
        "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    ]


def _wrapped(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Aligned columns, the last one wrapped to the width of the terminal."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    wide = _terminal()
    indent = 2 + sum(width + 2 for width in widths)
    lines: list[str] = []
    for row in rows:
        head = "  " + "".join(f"{c.ljust(w)}  " for c, w in zip(row, widths, strict=False))
        body = _wrap(row[-1], max(20, wide - indent)) or [""]
        lines += [(head + body[0]).rstrip(), *(" " * indent + more for more in body[1:])]
    return lines


def _wrap(text: str, wide: int, indent: str = "") -> list[str]:
    """Lines of whole words: a compound stays one, to be searched for."""
    return textwrap.wrap(
        text, wide, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


def _terminal() -> int:
    """Width of the terminal, 100 at most and where there is none."""
    return min(_WIDTH, shutil.get_terminal_size((_WIDTH, 24)).columns)
