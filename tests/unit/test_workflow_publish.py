"""What a workflow does when it ends, without the workflow."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import ROOT


def hook(params: Path, python: str = sys.executable, timeout: float = 60.0) -> Callable[[], None]:
    """The function of the rules, with the few names that it uses."""
    text = (ROOT / "workflow" / "rules" / "common.smk").read_text()
    source = "def publish():" + text.partition("def publish():")[2].partition("\n\n\n")[0]
    names = {
        "publishes": lambda _tracking: True,
        "BASE": SimpleNamespace(tracking=SimpleNamespace(timeout=timeout)),
        "RESOLVED": str(params),
        "subprocess": subprocess,
        "sys": SimpleNamespace(executable=python, stderr=sys.stderr),
    }
    exec(source, names)
    found: Callable[[], None] = names["publish"]  # type: ignore[assignment]
    return found


def test_publishing_needs_no_command_in_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    hook(tmp_path / "none.yaml")()
    assert "none.yaml does not exist" in capfd.readouterr().err


def test_what_cannot_be_started_or_takes_too_long_is_a_warning(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hook(tmp_path / "none.yaml", python=str(tmp_path / "python"))()
    assert capfd.readouterr().err.startswith("warning: not published: ")
    hook(tmp_path / "none.yaml", timeout=0.001)()
    assert "took more than 0.001 s" in capfd.readouterr().err
