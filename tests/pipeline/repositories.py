"""Workspaces that are Git and DVC repositories."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

WHO = ("AUTHOR", "COMMITTER")
COMMITTED = ("dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore", ".dvc/plots")


def environment(folder: Path) -> dict[str, str]:
    """Where the tools run: the copied sources, so that a test can edit them."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "",
        "DVC_NO_ANALYTICS": "1",
        **{f"GIT_{who}_{what}": "test@localhost" for who in WHO for what in ("NAME", "EMAIL")},
    }


def call(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a workspace."""
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )


def ok(folder: Path, *command: str) -> str:
    """Run a command that must succeed; return what it printed."""
    done = call(folder, *command)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def make_repository(folder: Path) -> Path:
    """Copy what is committed of DVC and make a Git repository."""
    for name in COMMITTED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
    ok(folder, "git", "init", "--quiet")
    return folder
