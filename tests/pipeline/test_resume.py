"""Every stage, killed at random moments: the same command ends with the same bytes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import TINY
from tests.pipeline.conftest import Workspace
from tests.pipeline.test_workflow import artifacts
from wsss.config import slices
from wsss.config.resolve import overlay

# Several windows a store and steps a training, all of them saved.
CHANGES: dict[str, Any] = {
    "run": {"variants": ["baseline"]},
    "resources": {"checkpoint_seconds": 1e-9},
    "data": {"scenes": {"val": 8}},
    "classify": {"epochs": 4},
    "cam": {"threshold": 0.4},
    "pseudo": {"crf": True},
}
# What takes seconds to minutes even for large data sets, and starts again.
# Of the report the bytes differ: it tells what the jobs cost.
STAGES = [stage for stage in slices.STAGES if stage != "report"]
STARTS_AGAIN = {"manifest", "compare"}

# One process imports everything; each command runs in a copy of it.
DRIVER = """
import json, os, signal, sys
from importlib import import_module
from wsss.cli import main
from wsss.config.slices import MODULES

if __name__ == "__main__":
    # Tests that are run in the background inherit that it is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in set(MODULES.values()):
        import_module(f"wsss.stages.{name}")
    import wsss.torchvision_shim, timm
    for line in sys.stdin:
        if child := os.fork():
            print(child, flush=True)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
            continue
        os.setsid()
        for number, name in ((1, "stdout.txt"), (2, "stderr.txt")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.argv = ["wsss", *json.loads(line)]
        sys.exit(main())
"""


def command(stage: str) -> list[str]:
    """What a user types to run a stage."""
    scored = {"evaluate": "final", "evaluate_tune": "cam_tune"}
    return ["evaluate", scored[stage]] if stage in scored else stage.split("_")


CONTINUE = [s for s in STAGES if s not in STARTS_AGAIN and not s.startswith("evaluate")]
# What a shell sees of a job that was sent a signal.
CODES = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}


@dataclass
class Lab:
    """A finished run, stage by stage, in which stages can be undone and run again."""

    workspace: Workspace
    driver: subprocess.Popen[str]
    expected: dict[str, bytes] = field(default_factory=dict)
    made: dict[str, set[str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    overlays: tuple[str, ...] = ("params.yaml", "overlay.yaml")
    results: str = "results"

    @property
    def root(self) -> Path:
        return self.workspace.folder / self.results / "scenes"

    def start(self, *arguments: str) -> int:
        """Start ``wsss`` and return its process id."""
        assert self.driver.stdin is not None
        assert self.driver.stdout is not None
        line = [*arguments, "--params", *self.overlays]
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
        with suppress(ProcessLookupError):
            os.killpg(process, sent)
        return self.end()

    def undo(self, stage: str) -> None:
        """Remove what a stage made."""
        for name in self.made[stage]:
            (self.root / name).unlink()

    def stderr(self) -> str:
        return (self.workspace.folder / "stderr.txt").read_text()

    def progress(self) -> list[Path]:
        """Saved states, and finished windows by the part of the last of their stores.

        Parts of a window get their names one after another: SIGKILL may leave the first alone.
        """
        found = self.root.glob("baseline/seed0/.state/*/*.*")
        return [path for path in found if path.suffix != ".tmp" and self.complete(path)]

    def complete(self, path: Path) -> bool:
        if path.suffix != ".zip":
            return True
        stage = path.parent.name.partition(".")[0]
        stores = [name for name in self.made[stage] if name.endswith(".zip")]
        return path.name.endswith(f".{len(stores) - 1}.zip")

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
    driver.kill()
    driver.wait()


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

    for sent in (signal.SIGKILL, signal.SIGTERM):
        code = lab.killed(sent, at_random(), *command(stage))
        # A process that is only starting or has all but ended dies of SIGTERM itself.
        assert code in (0, -signal.SIGKILL, -signal.SIGTERM, 143), lab.stderr()
        assert code != 143 or "interrupted: the same command continues" in lab.stderr()
        check_nothing_is_half_there(lab, stage)
    continues = bool(lab.progress())
    assert lab.run(*command(stage)) == 0, lab.stderr()
    assert ("continuing at" in lab.log(stage)) == continues
    check_done(lab)


@pytest.mark.parametrize(("stage", "sent"), [*zip(CONTINUE, cycle(CODES), strict=False)])
def test_finished_work_is_not_done_again(lab: Lab, stage: str, sent: signal.Signals) -> None:
    for _attempt in range(5):  # a stage of milliseconds may be faster than the signal
        lab.undo(stage)
        code = lab.killed(sent, lambda: bool(lab.progress()), *command(stage))
        if lab.progress():
            break
    assert code == CODES[sent]
    kept = len(lab.progress())
    assert lab.run(*command(stage)) == 0, lab.stderr()
    text = lab.log(stage)
    assert "continuing at" in text
    if "image" in text.partition("continuing at ")[2][:6]:
        done = int(text.partition("continuing at image ")[2].split()[0])
        assert done == 2 * kept
    check_done(lab)


# Helper processes


@pytest.mark.parametrize(
    ("stage", "sent"),
    [("cam", signal.SIGTERM), ("affinity", signal.SIGTERM), *(("seeds_alpha", s) for s in CODES)],
)
def test_helper_processes_end_with_their_parent(lab: Lab, stage: str, sent: signal.Signals) -> None:
    """A pool and data-loading workers get the signal, too; results do not depend on them."""
    helped = {"resources": {"processes": 2, "workers": 1}}
    (lab.workspace.folder / "helped.yaml").write_text(yaml.safe_dump(helped))
    with_helpers = replace(lab, overlays=(*lab.overlays, "helped.yaml"))
    lab.undo(stage)
    code = with_helpers.killed(sent, lambda: bool(lab.progress()), *command(stage))
    assert code in (0, CODES[sent])
    if code in (130, 143):
        assert lab.stderr().splitlines()[-1] == "interrupted: the same command continues"
        assert "Traceback" not in lab.stderr()
    continues = bool(lab.progress())
    assert with_helpers.run(*command(stage)) == 0, lab.stderr()
    assert ("continuing at" in lab.log(stage)) == continues
    check_done(lab)


def test_the_same_job_runs_once_at_a_time(lab: Lab) -> None:
    """A job that outlived its killed workflow keeps others from its state."""
    lab.undo("classify")
    code = lab.killed(signal.SIGTERM, lambda: bool(lab.progress()), *command("classify"))
    assert code == 143
    (folder,) = {path.parent for path in lab.progress()}
    holder = f"""if True:
        import fcntl, sys
        lock = open({str(folder / "lock")!r}, "r+")
        fcntl.lockf(lock, fcntl.LOCK_EX)
        print(flush=True)
        sys.stdin.read()
    """
    other = subprocess.Popen(
        [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    other.stdout.readline()
    lab.start(*command("classify"))
    time.sleep(1)
    assert lab.progress()  # it waits
    other.communicate()
    assert lab.end() == 0
    check_done(lab)


# Disks that are full or closed


@pytest.fixture(scope="module")
def disk(lab: Lab) -> Iterator[Lab]:
    """The finished run on a small disk of its own."""
    folder = lab.workspace.folder / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        shutil.copytree(lab.root, folder / "scenes")
        (lab.workspace.folder / "disk.yaml").write_text("run: {results: disk}\n")
        yield replace(lab, overlays=(*lab.overlays, "disk.yaml"), results="disk")
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def check_one_clear_error(disk: Lab, stage: str, says: str) -> None:
    before = artifacts(disk.root)
    assert disk.run(*command(stage)) == 1
    (line,) = disk.stderr().splitlines()
    assert line.startswith(f"error: {says}")
    assert str(disk.root.relative_to(disk.workspace.folder)) in line
    assert artifacts(disk.root) == before


@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk_is_one_clear_error(disk: Lab, stage: str) -> None:
    filler = disk.root / "filler.log"
    with suppress(OSError), filler.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))
    try:
        check_one_clear_error(disk, stage, "disk full while writing ")
        assert set(disk.expected) <= set(artifacts(disk.root))
    finally:
        filler.unlink()
    assert disk.run(*command(stage)) == 0, disk.stderr()
    check_done(disk)


@pytest.mark.parametrize("stage", STAGES)
def test_a_closed_folder_is_one_clear_error(disk: Lab, stage: str) -> None:
    folder = str(disk.root.parent)
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    try:
        check_one_clear_error(disk, stage, "cannot write ")
        # With its log elsewhere, it is the results that cannot be written.
        assert disk.run(*command(stage), "--log", "elsewhere.log") == 1
        (line,) = disk.stderr().splitlines()
        assert line.startswith("error: cannot write disk/scenes/")
    finally:
        subprocess.run(["mount", "-o", "remount,rw", folder], check=True)


# The workflow


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_workflow_continues(lab: Lab, sent: signal.Signals) -> None:
    def snakemake(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "snakemake", "--cores", "1"),
                "results/scenes/baseline/seed0/classify/weights.safetensors",
                *("--configfile", "overlay.yaml", *arguments),
            ],
            cwd=lab.workspace.folder,
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": str(lab.workspace.folder),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    lab.undo("classify")
    running = snakemake()
    while not lab.progress() and running.poll() is None:
        time.sleep(0.001)
    os.killpg(running.pid, sent)
    output = running.communicate()[0]
    assert running.returncode != 0, output
    assert lab.progress()
    again = snakemake()
    output = again.communicate()[0]
    if sent == signal.SIGKILL:
        assert again.returncode != 0
        assert "--unlock" in output
        assert snakemake("--unlock").wait() == 0
        again = snakemake()
        output = again.communicate()[0]
    assert again.returncode == 0, output
    assert "continuing at step" in lab.log("classify")
    check_done(lab)
