"""What the source says of a method's parameters: the comment beside each, or its docstring."""

from __future__ import annotations

import ast
import inspect
import io
import re
import textwrap
import tokenize
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsss.methods.base import MethodParams

_ENTRY = re.compile(r"^ {4}(\w+(?:, \w+)*): (.*)$")
_MORE = re.compile(r"^ {5,}\S")


def meanings(params: type[MethodParams]) -> dict[str, str]:
    """Return parameter -> meaning, those of the classes it inherits from included.

    Parameters without any comment are left out.
    """
    from wsss.methods.base import MethodParams

    found: dict[str, str] = {}
    for owner in reversed(params.__mro__):
        if issubclass(owner, MethodParams) and owner is not MethodParams:
            found |= _of_docstring(owner.__doc__ or "")
            found |= _of_comments(textwrap.dedent(inspect.getsource(owner)))
    return {name: text for name, text in found.items() if name in params.model_fields}


def _of_comments(source: str) -> dict[str, str]:
    """The comment that ends each field's own lines."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    return {
        node.target.id: comments[node.end_lineno or node.lineno]
        for node in body.body
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and (node.end_lineno or node.lineno) in comments
    }


def _of_docstring(docstring: str) -> dict[str, str]:
    """The entries under ``Attributes:``; several names may share one."""
    _, _, block = inspect.cleandoc(docstring).partition("Attributes:\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in block.splitlines():
        if entry := _ENTRY.match(line):
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, entry[2])
        elif _MORE.match(line):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        else:
            break
    return found
