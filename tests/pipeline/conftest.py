"""Runs of the real workflow on a few generated scenes."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, TINY
from wsss.config.resolve import overlay

# A second refinement that takes CAMs and seeds from the first variant.
IRNET: dict[str, Any] = {
    "share": {"from": "baseline", "through": "seeds"},
    "refine": {"method": "irnet"},
    "walk": {"background": "threshold", "background_threshold": "tune", "beta": 10},
}
TINY_WORKFLOW = overlay(
    TINY,
    {
        "run": {"variants": ["baseline", "irnet", "supervised"]},
        "variants": {"irnet": IRNET},
    },
)


@dataclass(frozen=True)
class Workspace:
    """A copy of the project in which Snakemake runs."""

    folder: Path

    def command(self, *arguments: str, **overrides: Any) -> list[str]:
        """Return Snakemake's command with the tiny overlay and ``overrides`` laid over it."""
        overlay_file = self.folder / "overlay.yaml"
        overlay_file.write_text(yaml.safe_dump(overlay(TINY_WORKFLOW, overrides)))
        return [
            *(sys.executable, "-m", "snakemake", "--configfile", str(overlay_file), *arguments),
        ]

    def environment(self) -> dict[str, str]:
        """Return the environment in which jobs find the copied project."""
        return {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            # The copied sources, so that a test can edit them.
            "PYTHONPATH": str(self.folder),
            "PYTHONDONTWRITEBYTECODE": "",
        }

    def run(self, *arguments: str, **overrides: Any) -> subprocess.CompletedProcess[str]:
        """Run the workflow on this machine."""
        return subprocess.run(
            self.command("--cores", "2", *arguments, **overrides),
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )

    def jobs(self, **overrides: Any) -> list[tuple[str, dict[str, str]]]:
        """Return the rules and wildcards of the jobs that a dry run lists."""
        done = self.run("--dry-run", "--quiet", "progress", **overrides)
        assert done.returncode == 0, done.stderr
        found: list[tuple[str, dict[str, str]]] = []
        for line in (done.stdout + done.stderr).splitlines():
            if line.startswith(("rule ", "localrule ")):
                found.append((line.split()[1].rstrip(":"), {}))
            elif line.strip().startswith("wildcards:"):
                pairs = line.split(":", 1)[1].split(",")
                found[-1][1].update(pair.strip().split("=") for pair in pairs)
        return [(rule, wildcards) for rule, wildcards in found if rule != "all"]

    def planned(self, **overrides: Any) -> dict[str, set[str]]:
        """Return the rules a dry run would execute, each with its variants.

        Evaluations are listed as ``evaluate WHAT``.
        """
        rules: dict[str, set[str]] = {}
        for rule, wildcards in self.jobs(**overrides):
            name = f"evaluate {wildcards['what']}" if "what" in wildcards else rule
            rules.setdefault(name, set()).add(wildcards.get("variant", ""))
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
            # With what Python has compiled, but for files that it is just writing.
            shutil.copytree(
                ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.pyc.*", ".*")
            )
        (folder / "profiles").symlink_to("workflow/profiles")
        _narrow_windows(folder / "wsss" / "shards.py")
        return Workspace(folder)

    return make


def _narrow_windows(source: Path) -> None:
    """Shards are cut between windows: make them so small that a few images fill several."""
    text = source.read_text()
    assert "\nWINDOW = 64\n" in text
    source.write_text(text.replace("\nWINDOW = 64\n", "\nWINDOW = 2\n"))


@pytest.fixture(scope="session")
def finished(
    make_workspace: Callable[[], Workspace], tmp_path_factory: pytest.TempPathFactory
) -> Workspace:
    """The workflow, run once; tests may plan in it but leave its results alone."""
    with _once_for_all_workers(tmp_path_factory) as told:
        if not told.exists():
            workspace = make_workspace()
            done = workspace.run()
            assert done.returncode == 0, done.stderr[-4000:]
            told.write_text(str(workspace.folder))
    # Each worker has its own: a test may edit a source in it for a while.
    folder = tmp_path_factory.mktemp("finished") / "project"
    shutil.copytree(told.read_text(), folder, symlinks=True)
    return Workspace(folder)


@contextmanager
def _once_for_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Lock and return a file of this session that all of pytest-xdist's workers see."""
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (folder / "finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder / "finished.txt"
