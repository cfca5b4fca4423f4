"""The script that fills a lost store again and says whether it is the same."""

from __future__ import annotations

import subprocess
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import load_script

GOOD: dict[str, Any] = {
    "published": {"runs": 3, "models": 1},
    "models_wanted": True,
    "unchanged_by_publishing_again": True,
    "rebuilt_equal": True,
}


@pytest.fixture
def rebuild() -> ModuleType:
    """The script as a module."""
    return load_script("docs/mlflow_rebuild.py")


def test_networks_that_are_wanted_and_not_there_are_a_failure(rebuild: ModuleType) -> None:
    assert rebuild.failures(GOOD) == []
    without = {**GOOD, "published": {"runs": 3, "models": 0}}
    assert "no network" in rebuild.failures(without)[0]
    assert rebuild.failures({**without, "models_wanted": False}) == []
    assert len(rebuild.failures({**GOOD, "rebuilt_equal": False})) == 1


def test_notes_are_kept(rebuild: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "mlflow: 3 runs, 3 written (5 s): sqlite:///mlflow.db\n"
    told = "note: d/v/seed0: no model: too old\nsome warning\n"
    done = subprocess.CompletedProcess([], 0, said, told)
    monkeypatch.setattr(subprocess, "run", lambda *_args, **_named: done)
    found = rebuild.publish(["params.yaml"], {})
    assert (found.said, found.notes) == ("3 runs, 3 written", ["d/v/seed0: no model: too old"])
