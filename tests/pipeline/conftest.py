"""Runs of the real workflow on a few generated scenes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, TINY
from wsss.config.resolve import overlay


@dataclass(frozen=True)
class Workspace:
    """A copy of the project in which Snakemake runs."""

    folder: Path

    def run(self, *arguments: str, **overrides: Any) -> subprocess.CompletedProcess[str]:
        """Run Snakemake with the tiny overlay and ``overrides`` laid over it."""
        overlay_file = self.folder / "overlay.yaml"
        overlay_file.write_text(yaml.safe_dump(overlay(TINY, overrides)))
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            # The copied sources, so that a test can edit them.
            "PYTHONPATH": str(self.folder),
        }
        return subprocess.run(
            [
                *(sys.executable, "-m", "snakemake", "--cores", "2"),
                *("--configfile", str(overlay_file), *arguments),
            ],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def planned(self, **overrides: Any) -> dict[str, set[str]]:
        """Return the rules a dry run would execute, each with its variants."""
        done = self.run("--dry-run", "--quiet", "progress", **overrides)
        assert done.returncode == 0, done.stderr
        rules: dict[str, set[str]] = {}
        rule = ""
        for line in (done.stdout + done.stderr).splitlines():
            if line.startswith(("rule ", "localrule ")):
                rule = line.split()[1].rstrip(":")
                rules.setdefault(rule, set())
            elif line.strip().startswith("wildcards:"):
                pairs = dict(part.strip().split("=") for part in line.split(":", 1)[1].split(","))
                rules[rule].add(pairs.get("variant", ""))
        rules.pop("all", None)
        return rules

    def path(self, *parts: str) -> Path:
        """Return a path under the results of the data set."""
        return self.folder.joinpath("results", "scenes", *parts)


@pytest.fixture(scope="session")
def make_workspace(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Workspace]:
    """Copy what a workflow needs to a fresh folder."""

    def make() -> Workspace:
        folder = tmp_path_factory.mktemp("project")
        for name in ("Snakefile", "params.yaml"):
            shutil.copy(ROOT / name, folder)
        for name in ("workflow", "wsss", "envs"):
            shutil.copytree(ROOT / name, folder / name)
        (folder / "profiles").symlink_to("workflow/profiles")
        return Workspace(folder)

    return make


@pytest.fixture(scope="session")
def finished(make_workspace: Callable[[], Workspace]) -> Workspace:
    """The workflow, run once; tests may plan in it but leave its results alone."""
    workspace = make_workspace()
    done = workspace.run()
    assert done.returncode == 0, done.stderr[-4000:]
    return workspace
