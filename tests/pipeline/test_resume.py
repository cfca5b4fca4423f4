"""Every stage, killed at random moments: the same command ends with the same bytes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import TINY
from tests.pipeline.conftest import Workspace
from tests.pipeline.test_workflow import artifacts
from wsss.config.resolve import overlay
from wsss.config.slices import STAGES

# Several windows a store and steps a training, all of them saved.
CHANGES: dict[str, Any] = {
    "run": {"variants": ["baseline"]},
    "resources": {"checkpoint_seconds": 0},
    "data": {"scenes": {"val": 8}},
    "classify": {"epochs": 2},
    "cam": {"threshold": 0.4},
    "pseudo": {"crf": True},
}
# What takes seconds to minutes even for large data sets, and starts again.
STARTS_AGAIN = {"manifest", "compare"}

# One process imports everything; each command runs in a copy of it.
DRIVER = """
import json, os, sys
from importlib import import_module
from wsss.cli import main
from wsss.config.slices import MODULES

if __name__ == "__main__":
    for name in set(MODULES.values()):
        import_module(f"wsss.stages.{name}")
    import timm
    for line in sys.stdin:
        if child := os.fork():
            print(child, flush=True)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
            continue
        os.setsid()
        with open("stderr.txt", "w") as stream:
            os.dup2(stream.fileno(), 2)
        sys.argv = ["wsss", *json.loads(line)]
        sys.exit(main())
"""


def command(stage: str) -> list[str]:
    """What a user types to run a stage."""
    return ["evaluate", "final"] if stage == "evaluate" else stage.split("_")


def starts_again(stage: str) -> bool:
    return stage in STARTS_AGAIN or stage.startswith("evaluate")


@dataclass
class Lab:
    """A finished run, stage by stage, in which stages can be undone and run again."""

    workspace: Workspace
    driver: subprocess.Popen[str]
    expected: dict[str, bytes] = field(default_factory=dict)
    made: dict[str, set[str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.workspace.path()

    def start(self, *arguments: str) -> int:
        """Start ``wsss`` and return its process id."""
        assert self.driver.stdin is not None
        assert self.driver.stdout is not None
        line = [*arguments, "--params", "params.yaml", "overlay.yaml"]
        self.driver.stdin.write(json.dumps(line) + "\n")
        self.driver.stdin.flush()
        return int(self.driver.stdout.readline())

    def end(self) -> int:
        """Wait for it; return its exit code."""
        assert self.driver.stdout is not None
        return int(self.driver.stdout.readline())

    def run(self, *arguments: str) -> int:
        self.start(*arguments)
        return self.end()

    def killed(self, sent: signal.Signals, when: Callable[[], bool], *arguments: str) -> int:
        """Start ``wsss``, signal its whole group as soon as ``when`` holds, return its code."""
        process = self.start(*arguments)
        while not when() and alive(process):
            time.sleep(0.001)
        # Even if it has just ended, the driver has not reaped it or somebody else has its number.
        try:
            os.killpg(process, sent)
        except ProcessLookupError:
            pass
        return self.end()

    def undo(self, stage: str) -> None:
        """Remove what a stage made."""
        for name in self.made[stage]:
            (self.root / name).unlink()

    def stderr(self) -> str:
        return (self.workspace.folder / "stderr.txt").read_text()

    def progress(self) -> list[Path]:
        """Finished parts and saved states."""
        return [p for p in self.root.rglob(".state/*/*.*") if p.suffix != ".tmp"]

    def log(self, stage: str) -> str:
        name = "_".join(command(stage))
        return next(self.root.rglob(f"logs/{name}.log")).read_text()


def alive(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.fixture(scope="module")
def lab(make_workspace: Callable[[], Workspace]) -> Iterator[Lab]:
    workspace = make_workspace()
    (workspace.folder / "driver.py").write_text(DRIVER)
    (workspace.folder / "overlay.yaml").write_text(yaml.safe_dump(overlay(TINY, CHANGES)))
    driver = subprocess.Popen(
        [sys.executable, "driver.py"],
        cwd=workspace.folder,
        env={**os.environ, "PYTHONPATH": str(workspace.folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    lab = Lab(workspace, driver)
    for stage in STAGES:
        before, began = artifacts(lab.root), time.monotonic()
        assert lab.run(*command(stage)) == 0, lab.stderr()
        lab.seconds[stage] = time.monotonic() - began
        lab.expected = artifacts(lab.root)
        lab.made[stage] = {n for n in lab.expected if lab.expected[n] != before.get(n)}
        assert lab.made[stage], stage
    yield lab
    assert driver.stdin is not None
    driver.stdin.close()
    driver.wait(10)


def check_nothing_is_half_there(lab: Lab, stage: str) -> None:
    """Declared files are complete or absent; whatever other stages made is as it was."""
    found = {
        name: content
        for name, content in artifacts(lab.root).items()
        if ".state" not in name and not name.endswith(".tmp")
    }
    assert all(lab.expected[name] == content for name, content in found.items())
    assert set(lab.expected) - set(found) <= lab.made[stage]


def check_done(lab: Lab) -> None:
    """Every artifact has the bytes of the undisturbed run, and nothing else is left."""
    found = artifacts(lab.root)
    assert set(found) == set(lab.expected)
    assert [name for name in found if found[name] != lab.expected[name]] == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_ends_with_the_same_bytes(lab: Lab, stage: str) -> None:
    rng = random.Random(stage)
    lab.undo(stage)

    def at_random() -> Callable[[], bool]:
        moment = time.monotonic() + rng.random() * lab.seconds[stage]
        return lambda: time.monotonic() > moment

    for sent in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        code = lab.killed(sent, at_random(), *command(stage))
        assert code in (0, -signal.SIGKILL, 143), lab.stderr()
        assert code != 143 or "interrupted: the same command continues" in lab.stderr()
        check_nothing_is_half_there(lab, stage)
    continues = bool(lab.progress())
    assert lab.run(*command(stage)) == 0, lab.stderr()
    assert ("continuing at" in lab.log(stage)) == continues
    check_done(lab)


@pytest.mark.parametrize("stage", [stage for stage in STAGES if not starts_again(stage)])
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_finished_work_is_not_done_again(lab: Lab, stage: str, sent: signal.Signals) -> None:
    for _attempt in range(5):  # a stage of milliseconds may be faster than the signal
        lab.undo(stage)
        code = lab.killed(sent, lambda: bool(lab.progress()), *command(stage))
        if lab.progress():
            break
    assert code == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[sent]
    kept = len(lab.progress())
    assert lab.run(*command(stage)) == 0, lab.stderr()
    text = lab.log(stage)
    assert "continuing at" in text
    if "image" in text.partition("continuing at ")[2][:6]:
        done = int(text.partition("continuing at image ")[2].split()[0])
        assert done in (4 * kept, 2 * kept)  # two stores have two parts a window
    check_done(lab)
