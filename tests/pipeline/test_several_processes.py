"""Training in two processes by the command that a user types."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.conftest import ROOT, TINY
from wsss.artifacts import load_weights
from wsss.config.resolve import overlay

# Plain steps: Adam makes steps of full length of gradients that are nothing but rounding, and
# normalisation by small batches makes rounding grow. Contract tests have it, in double precision.
STEADY: dict[str, Any] = {
    "run": {"variants": ["baseline"]},
    "classify": {"optimizer": "sgd", "lr": 0.001, "epochs": 4, "freeze_bn": True},
}
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def command(folder: Path, processes: int, **changes: Any) -> list[str]:
    """The command that trains in ``folder/results<processes>``."""
    values = {"run": {"results": f"results{processes}"}, "distributed": {"processes": processes}}
    layers = overlay(overlay(overlay(TINY, STEADY), values), changes)
    file = folder / f"overlay{processes}.yaml"
    file.write_text(yaml.safe_dump(layers))
    return [sys.executable, "-m", "wsss", "classify", "--params", "params.yaml", file.name]


def run(folder: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )


def folder_of(folder: Path, processes: int) -> Path:
    return folder / f"results{processes}" / "scenes" / "baseline" / "seed0"


def weights(folder: Path, processes: int) -> Path:
    return folder_of(folder, processes) / "classify" / "weights.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which one process and two have trained."""
    place = tmp_path_factory.mktemp("processes")
    (place / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    for processes in (1, 2):
        train = command(place, processes)
        made = [*train[:3], "manifest", *train[4:]]
        for arguments in (made, train):
            done = run(place, arguments)
            assert done.returncode == 0, done.stderr
    return place


def test_the_result_is_that_of_one_process(folder: Path) -> None:
    (one, _), (two, meta) = (load_weights(weights(folder, count)) for count in (1, 2))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4, msg=name)
    assert meta["params"]["distributed"] == {"nodes": 1, "processes": 2}


def test_the_first_process_alone_writes(folder: Path) -> None:
    found = {path.name for path in folder_of(folder, 2).rglob("*") if path.is_file()}
    assert found == {path.name for path in folder_of(folder, 1).rglob("*") if path.is_file()}
    log = (folder_of(folder, 2) / "logs" / "classify.log").read_text()
    assert log.count("step 10/12") == 1


@pytest.fixture
def running(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The same training in two processes again, slowed down by saving every step, under way."""
    weights(folder, 2).unlink(missing_ok=True)
    arguments = command(folder, 2, resources={"checkpoint_seconds": 1e-9})
    process = subprocess.Popen(
        arguments, cwd=folder, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not saved(folder) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    yield process
    process.kill()
    process.wait()


def saved(folder: Path) -> list[Path]:
    return list(folder_of(folder, 2).glob(".state/*/state.safetensors"))


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children]


def test_told_to_stop_it_saves_and_continues_to_the_same_bytes(
    folder: Path, running: subprocess.Popen[str]
) -> None:
    expected = folder / "expected.safetensors"
    running.send_signal(signal.SIGTERM)
    _, stderr = running.communicate(timeout=120)
    assert stderr.splitlines() == ["interrupted: the same command continues"]
    assert running.returncode == 128 + signal.SIGTERM
    assert saved(folder)
    resume = command(folder, 2, resources={"checkpoint_seconds": 1e-9})
    assert run(folder, resume).returncode == 0
    resumed = weights(folder, 2).read_bytes()
    assert not saved(folder)
    assert "continuing at step" in (folder_of(folder, 2) / "logs/classify.log").read_text()
    weights(folder, 2).unlink()
    assert run(folder, command(folder, 2)).returncode == 0
    weights(folder, 2).rename(expected)
    assert resumed == expected.read_bytes()


def test_a_killed_process_ends_all_with_one_line(
    folder: Path, running: subprocess.Popen[str]
) -> None:
    ranks = ranks_of(running)
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    _, stderr = running.communicate(timeout=120)
    (line,) = stderr.splitlines()
    assert line.startswith("error: training process ")
    assert "was killed by SIGKILL" in line
    assert running.returncode == 1
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)
    assert "process 0 lost another: " in (folder_of(folder, 2) / "logs/classify.log").read_text()
    assert not weights(folder, 2).exists()


def test_an_error_of_the_user_is_said_once(folder: Path) -> None:
    done = run(folder, command(folder, 3, classify={"batch": 2}))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert (
        "run the stage that makes it first" in line
    )  # results3 has none: whoever finds out first says so
    named = command(folder, 3, run={"results": "results1"}, classify={"batch": 2})
    done = run(folder, named)
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    line = lines[0]
    assert line == (
        "error: a batch of 2 images cannot be shared by 3 processes: lower "
        "distributed.processes or raise batch"
    )


def test_another_number_of_processes_than_configured_is_refused(folder: Path) -> None:
    arguments = command(folder, 1)[1:]
    environment = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "torchrun started 2 processes but this job is one of 1" in done.stderr


def test_nodes_meet_where_they_are_told_to(folder: Path) -> None:
    """Two starts of the command on one machine stand for two nodes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        meeting = f"localhost:{free.getsockname()[1]}"
    nodes = {"run": {"results": "results1"}, "distributed": {"nodes": 2, "processes": 1}}
    arguments = command(folder, 4, **nodes)
    before = load_weights(weights(folder, 1))[0]
    weights(folder, 1).unlink()
    running = [
        subprocess.Popen(arguments, cwd=folder, env={**ENVIRONMENT, "WSSS_RENDEZVOUS": meeting})
        for _ in range(2)
    ]
    assert [process.wait(300) for process in running] == [0, 0]
    after, meta = load_weights(weights(folder, 1))
    assert meta["params"]["distributed"] == {"nodes": 2, "processes": 1}
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=1e-3, atol=1e-4, msg=name)
