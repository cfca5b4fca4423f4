"""Jobs that end badly are reported with their own log, and the same command goes on."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from tests.slurm.conftest import SEEDS, STEPS, Cluster, Reference, trained
from tests.slurm.one_node import run, wait_for

TRAININGS = "classify: &training {mem_mb: attempt * 16000, runtime: attempt * 1440}"
ALL = [trained(seed) for seed in range(SEEDS)]
FAILED, TIMED_OUT, CANCELLED, OUT_OF_MEMORY = range(SEEDS)


def asking(mem_mb: str = "4000", runtime: str = "60", extra: str = "") -> tuple[str, str]:
    """An edit of the profile: what trainings ask for."""
    signalled = f", slurm_extra: {extra}" if extra else ""
    asked = f"mem_mb: {mem_mb}, runtime: {runtime}{signalled}"
    return TRAININGS, f"classify: &training {{{asked}}}"


def reports(output: str) -> dict[int, str]:
    """Errors of trainings, by seed."""
    found = re.findall(r"^Error in rule classify:\n(?: {4}.*\n)+", output, re.M)
    seeds = [re.search(r"output: .*?/seed(\d)/", text) for text in found]
    return {int(seed.group(1)): text for seed, text in zip(seeds, found, strict=True) if seed}


def test_ends_are_told_apart_and_the_same_command_goes_on(
    training: Cluster, reference: Reference
) -> None:
    shipped = training.profile.read_text()
    # One minute for one of them, without a warning; too little memory for another one.
    extra = f"\"'' if wildcards.seed == '{TIMED_OUT}' else '--signal=TERM@120'\""
    training.edit_profile(
        asking(
            f"\"300 if wildcards.seed == '{OUT_OF_MEMORY}' else 4000\"",
            f"\"1 if wildcards.seed == '{TIMED_OUT}' else 60\"",
            extra,
        )
    )
    # A file where the stage needs a folder.
    state = training.folder / f"results/scenes/baseline/seed{FAILED}/.state"
    state.parent.mkdir(parents=True)
    state.touch()
    command = ("--retries", "0", *ALL)
    with training.started(*command) as snakemake:
        # So slowly that a minute does not do.
        run("scancel", training.wait_until_training(CANCELLED, pace=4))
        assert training.end(snakemake) == 1
    told = reports(training.output())
    assert set(told) == set(range(SEEDS))
    for seed, text in told.items():
        assert f"results/scenes/baseline/seed{seed}/logs/classify.log" in text
    assert "'FAILED'" in told[FAILED]
    assert ".state" in training.log(FAILED)
    assert "'TIMEOUT'" in told[TIMED_OUT]
    assert "'CANCELLED'" in told[CANCELLED]
    # The state depends on what enforces the limit; SLURM's own log says it.
    assert re.search("'(OUT_OF_MEMORY|FAILED|CANCELLED)'", told[OUT_OF_MEMORY])
    slurm_log = re.search(r"log: \S+, (\S+\.log)", told[OUT_OF_MEMORY])
    assert slurm_log is not None
    assert "exceeded memory limit" in Path(slurm_log[1]).read_text()

    state.unlink()
    training.profile.write_text(shipped)
    training.edit_profile(asking())
    training.pace(0)
    assert training.run(*command) == 0, training.output()[-4000:]
    assert [training.weights(seed) for seed in range(SEEDS)] == reference.weights
    for seed in (TIMED_OUT, CANCELLED):
        assert "continuing at step" in training.log(seed)


def test_a_retry_asks_for_more_memory(training: Cluster, reference: Reference) -> None:
    training.edit_profile(asking("attempt * attempt * 400"))
    training.pace(0)
    assert training.run(trained(0)) == 0, training.output()[-4000:]
    assert "Trying to restart job" in training.output()
    assert "mem_mb=400," in training.output()
    assert "mem_mb=1600," in training.output()
    assert training.weights(0) == reference.weights[0]


def test_nothing_is_lost_while_the_controller_is_away(
    training: Cluster, reference: Reference
) -> None:
    with training.started(trained(0), trained(1)) as snakemake:
        training.wait_until_training(0, pace=0)
        training.node.stop_controller()
        try:
            # Both end while nobody listens, and Snakemake asks in vain.
            ends = [f"step {STEPS}/{STEPS}", "does not answer"]
            wait_for(
                lambda: (
                    all(ends[0] in training.log(seed) for seed in (0, 1))
                    and ends[1] in training.output()
                ),
                "the trainings do not end, or nobody asks",
                seconds=300,
            )
        finally:
            training.node.start_controller()
        assert training.end(snakemake) == 0, training.output()[-4000:]
    assert [training.weights(seed) for seed in (0, 1)] == reference.weights[:2]


def test_ctrl_c_leaves_no_job_behind(training: Cluster, reference: Reference) -> None:
    with training.started(trained(0), trained(1)) as snakemake:
        training.wait_until_training(0, pace=1)
        snakemake.send_signal(signal.SIGINT)
        assert training.end(snakemake) != 0
        wait_for(lambda: not training.node.jobs(), "jobs are left", seconds=20)
    assert not (training.folder / trained(0)).exists()
    training.pace(0)
    assert training.run(trained(0), trained(1)) == 0, training.output()[-4000:]
    assert "continuing at step" in training.log(0)
    assert [training.weights(seed) for seed in (0, 1)] == reference.weights[:2]
