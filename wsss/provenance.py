"""Which of our own source files a stage consists of, and their hash.

Found by reading imports, without running anything: a stage's module, what it imports from this
package (inside functions, and by names in registries, too), and so on; with each module the data
files beside it that it names. Snakemake gets the hash
as a parameter of the rule, so that a code edit reruns exactly the stages that contain it.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

PACKAGE = "wsss"
_SOURCE = Path(__file__).parent
# The resolver only produces values, and those are parameters of each rule already; the command
# line, the records of what a job cost and those who are told of it cannot change a result.
_NEUTRAL = (
    "wsss.config",
    "wsss.cli",
    "wsss.cli_help",
    "wsss.commands",
    "wsss.runrecord",
    "wsss.runcurve",
    "wsss.tracking",
    "wsss.distributed.launch",
    "wsss.paths",
    "wsss.provenance",
)


def _file(module: str) -> Path | None:
    parts = module.split(".")[1:]
    if not all(parts):  # "wsss.methods.", the start of a name that is put together
        return None
    base = _SOURCE.joinpath(*parts)
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


class _Named(NamedTuple):
    """What a source names: modules in import statements, and strings of any kind."""

    imported: frozenset[str]
    strings: frozenset[str]


@cache
def _named(source: Path) -> _Named:
    imported: set[str] = set()
    strings: set[str] = set()
    for node in ast.walk(ast.parse(source.read_bytes())):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            strings.add(node.value)
    return _Named(frozenset(imported), frozenset(strings))


@cache
def _imports(module: str) -> frozenset[str]:
    """Return the modules of this package that ``module`` names: in import statements or, as a
    registry that imports lazily does, in strings."""
    path = _file(module)
    assert path is not None
    found = _named(path)
    names = found.imported | {text for text in found.strings if text.startswith(f"{PACKAGE}.")}
    return frozenset(n for n in names if n.split(".")[0] == PACKAGE and _file(n))


def _neutral(module: str) -> bool:
    return any(module == n or module.startswith(f"{n}.") for n in _NEUTRAL)


def closure(*modules: str) -> list[str]:
    """Return the modules that ``modules`` reach by imports, themselves and packages included."""
    seen: set[str] = set()
    queue = list(modules)
    while queue:
        module = queue.pop()
        if module in seen or _neutral(module):
            continue
        if _file(module) is None:
            raise ValueError(f"{module} is not a module of this package")
        seen.add(module)
        queue.extend(_imports(module))
        parent = module.rpartition(".")[0]
        if parent:
            queue.append(parent)
    return sorted(seen)


def stage_modules(stage: str, method: str, layout: str | None = None) -> list[str]:
    """Return the source closure of a stage, its method's module included where it trains one,
    and that of the layout it imports."""
    from wsss.config.slices import MODULES, STAGES

    modules = [f"wsss.stages.{MODULES[stage]}"]
    if "method" in STAGES[stage]:
        modules.append(f"wsss.methods.{method}")
    if layout is not None:
        modules.append(f"wsss.models.imports.{layout.replace('-', '_')}")
    return closure(*modules)


@cache
def data_files(source: Path) -> tuple[Path, ...]:
    """Return the files beside a module's that it names in strings, such as a page's template."""
    names = _named(source).strings
    beside = (found for found in source.parent.iterdir() if found.suffix != ".py")
    return tuple(sorted(found for found in beside if found.name in names and found.is_file()))


def files_of(modules: Iterable[str]) -> list[str]:
    """Return what :func:`code_hash` reads of modules, relative to the folder of the package."""
    found: set[Path] = set()
    for module in modules:
        path = _file(module)
        assert path is not None
        found |= {path, *data_files(path)}
    return sorted(path.relative_to(_SOURCE.parent).as_posix() for path in found)


def modules_of(files: Iterable[str]) -> list[str]:
    """Return the modules among source files, as :func:`files_of` names them."""
    names = (file.removesuffix(".py") for file in files if file.endswith(".py"))
    return [name.removesuffix("/__init__").replace("/", ".") for name in names]


@cache
def code_hash(stage: str, method: str, layout: str | None = None) -> str:
    """Return the hash of a stage's own source, read once in the life of a process."""
    digest = hashlib.blake2b(digest_size=8)
    for module in stage_modules(stage, method, layout):
        path = _file(module)
        assert path is not None
        digest.update(f"{module}\n".encode())
        digest.update(path.read_bytes())
        for beside in data_files(path):
            digest.update(f"{beside.name}\n".encode())
            digest.update(beside.read_bytes())
    return digest.hexdigest()
