"""The real workflow, on a real SLURM."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.conftest import Workspace, make_workspace
from tests.slurm import one_node
from tests.slurm.one_node import OneNode, UnavailableError, wait_for

__all__ = ["make_workspace"]

# What a test cannot wait for; everything else is the profile as it is shipped.
IMPATIENT = Path(__file__).with_name("impatient.py")
SETTINGS = ("--latency-wait", "15", "--slurm-status-command", "squeue")
# Seeds of one training that takes as long as a file called `pace` says.
SEEDS = 4
TRAINING: dict[str, Any] = {
    "run": {"variants": ["baseline"], "seeds": list(range(SEEDS))},
    "classify": {"epochs": 15, "crop": 32, "long_side": [32, 48]},
    "compute": {"device": "cpu"},
}
STEPS = 45
# For a whole workflow on a busy machine.
PATIENCE = 900


def trained(seed: int) -> str:
    """Target: the weights of the training."""
    return f"results/scenes/baseline/seed{seed}/classify/weights.safetensors"


@dataclass
class Cluster:
    """A copy of the project whose jobs run on the cluster."""

    workspace: Workspace
    node: OneNode
    overrides: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.workspace.folder

    @property
    def profile(self) -> Path:
        return self.folder / "workflow" / "profiles" / "slurm" / "config.yaml"

    def edit_profile(self, *edits: tuple[str, str]) -> None:
        """Edit the profile as a user would."""
        text = self.profile.read_text()
        for before, after in edits:
            assert text.count(before) == 1, before
            text = text.replace(before, after)
        self.profile.write_text(text)

    def pace(self, seconds: float) -> None:
        """Set how long a step of a training takes at least."""
        replacement = self.folder / "pace.new"
        replacement.write_text(str(seconds))
        replacement.replace(self.folder / "pace")

    @contextmanager
    def started(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Run Snakemake beside the test; it is gone when the block ends."""
        python, _, _, *options = self.workspace.command(
            "--workflow-profile", "slurm", *SETTINGS, *arguments, **self.overrides
        )
        with (self.folder / "snakemake.log").open("w") as log:
            process = subprocess.Popen(
                # Tests that are run in the background ignore it, and what they start inherits that.
                ["env", "--default-signal=INT", python, str(IMPATIENT), *options],
                cwd=self.folder,
                env=self.workspace.environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(20)
            process.kill()
            process.wait()

    def run(self, *arguments: str) -> int:
        """Run the workflow on the cluster and return Snakemake's exit code."""
        with self.started(*arguments) as process:
            return self.end(process)

    def end(self, process: subprocess.Popen[str]) -> int:
        """Wait for Snakemake and return its exit code."""
        try:
            return process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            pytest.fail(
                f"Snakemake does not end:\n{self.output()[-3000:]}{self.node.log()[-3000:]}"
            )

    def output(self) -> str:
        """Return what Snakemake printed in the last run."""
        return (self.folder / "snakemake.log").read_text()

    def run_id(self) -> str:
        """Return the name of the last run's jobs."""
        found = re.search(r"^SLURM run ID: (\S+)$", self.output(), re.M)
        assert found is not None
        return found[1]

    def log(self, seed: int) -> str:
        """Return the training's own log."""
        path = self.folder / f"results/scenes/baseline/seed{seed}/logs/classify.log"
        return path.read_text() if path.exists() else ""

    def wait_until_training(self, seed: int, pace: float) -> str:
        """Wait until steps are made, then set their pace; return the number of the job."""
        wait_for(lambda: "step 10/" in self.log(seed), "no training", seconds=300)
        self.pace(pace)
        number = self.node.job_of(f"rule_classify_wildcards_scenes_baseline_{seed}")
        assert number is not None
        return number

    def weights(self, seed: int) -> bytes:
        """Return what the training made."""
        return (self.folder / trained(seed)).read_bytes()


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNode]:
    """A running SLURM."""
    folder = tmp_path_factory.mktemp("slurm")
    try:
        running = one_node.start(folder)
    except UnavailableError as why:
        pytest.skip(str(why))
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(autouse=True)
def no_job_is_left(node: OneNode) -> Iterator[None]:
    """Whatever a test does, the next one finds an empty queue."""
    yield
    if node.jobs():
        one_node.run("scancel", "--user=root")
        wait_for(lambda: not node.jobs(), "jobs do not end")


@dataclass(frozen=True)
class Reference:
    """Trainings that ran undisturbed on this machine, without SLURM."""

    workspace: Workspace
    weights: list[bytes]


@pytest.fixture(scope="session")
def reference(make_workspace: Callable[[], Workspace]) -> Reference:
    """Train each seed locally."""
    workspace = make_workspace()
    loop = workspace.folder / "wsss" / "engine" / "loop.py"
    text = loop.read_text()
    line = "            self._learn(batch, progress)\n"
    assert text.count(line) == 1
    loop.write_text(
        text.replace(line, f"{line}            time.sleep(float(Path('pace').read_text()))\n")
    )
    (workspace.folder / "pace").write_text("0")
    done = workspace.run(*map(trained, range(SEEDS)), **TRAINING)
    assert done.returncode == 0, done.stderr[-4000:]
    weights = [(workspace.folder / trained(seed)).read_bytes() for seed in range(SEEDS)]
    assert len(set(weights)) == SEEDS
    return Reference(workspace, weights)


@pytest.fixture
def training(reference: Reference, node: OneNode, tmp_path: Path) -> Cluster:
    """The same trainings, not yet begun; their data set is there."""
    folder = tmp_path / "project"
    shutil.copytree(reference.workspace.folder, folder, symlinks=True)
    shutil.rmtree(folder / "results" / "scenes" / "baseline")
    cluster = Cluster(Workspace(folder), node, TRAINING)
    cluster.pace(0.2)
    return cluster
