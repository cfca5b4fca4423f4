"""The page that adds a method, executed as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.pipeline.conftest import Workspace

PAGE = (ROOT / "docs" / "add-your-own-method.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```(\w+)\n(.*?)```\n", PAGE, flags=re.DOTALL))
NAME = "lse"


@pytest.fixture(scope="module")
def workspace(make_workspace: Callable[[], Workspace]) -> Workspace:
    """A copy of the project after the page's two edits."""
    made = make_workspace()
    shutil.copy(ROOT / "pyproject.toml", made.folder)
    shutil.copytree(
        ROOT / "tests", made.folder / "tests", ignore=shutil.ignore_patterns("__pycache__")
    )
    (made.folder / "wsss" / "methods" / f"{NAME}.py").write_text(BLOCKS["python"])
    with (made.folder / "params.yaml").open("a") as params:
        params.write(BLOCKS["yaml"])
    return made


def call(folder: Path, *arguments: str) -> str:
    """Run a Python module in the copy; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    return done.stdout


def commands() -> list[list[str]]:
    """The words of each line of the page's last block."""
    return [shlex.split(line, comments=True) for line in BLOCKS["bash"].splitlines()]


def test_it_is_short() -> None:
    assert set(BLOCKS) == {"python", "yaml", "bash"}
    assert len(BLOCKS["python"].splitlines()) < 80
    assert len(BLOCKS["yaml"].splitlines()) < 5


def test_it_keeps_the_contract(workspace: Workspace) -> None:
    python, *arguments = commands()[0]
    assert python == "python"
    printed = call(workspace.folder, *arguments[1:], "-p", "no:cacheprovider")
    assert re.search(r"^[12]\d passed", printed, flags=re.MULTILINE), printed


def test_it_describes_itself(workspace: Workspace) -> None:
    command, *arguments = commands()[1]
    assert command == "wsss"
    printed = call(workspace.folder, "wsss.cli", *arguments)
    assert "Pinheiro" in printed
    assert "sharpness  4  towards 0: mean; large: maximum" in printed


def test_the_workflow_plans_it(workspace: Workspace) -> None:
    command, *arguments = commands()[2]
    assert command == "snakemake"
    printed = call(workspace.folder, "snakemake", *arguments, "--nolock")
    for stage in ("classify", "cam", "segment", "predict"):
        assert re.search(rf"rule {stage}:.*?variant={NAME}", printed, flags=re.DOTALL), stage


def test_the_workflow_trains_it(workspace: Workspace) -> None:
    weights = f"results/scenes/{NAME}/seed0/classify/weights.safetensors"
    done = workspace.run("--nolock", weights, run={"variants": [NAME]})
    assert done.returncode == 0, done.stderr[-4000:]
    assert (workspace.folder / weights).stat().st_size > 0
