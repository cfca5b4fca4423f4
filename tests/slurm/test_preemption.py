"""Jobs that have to give way save their state in the grace time and go on from there."""

from __future__ import annotations

from tests.slurm.conftest import Cluster, Reference, trained
from tests.slurm.one_node import CPUS, run, wait_for


def saved(cluster: Cluster) -> bool:
    return "state saved at step" in cluster.log(0)


def check_it_went_on(cluster: Cluster, reference: Reference) -> None:
    assert "continuing at step" in cluster.log(0)
    assert cluster.weights(0) == reference.weights[0]


def give_way() -> None:
    """Submit a job that needs the whole node now."""
    run("sbatch", "--partition=urgent", f"--cpus-per-task={CPUS}", "--output=/dev/null", "--wrap=:")


def test_a_preempted_training_is_resubmitted(training: Cluster, reference: Reference) -> None:
    with training.started(trained(0)) as snakemake:
        training.wait_until_training(0, pace=1)
        give_way()
        wait_for(lambda: saved(training), "no state is saved")
        training.pace(0)
        assert training.end(snakemake) == 0, training.output()[-4000:]
    assert "'FAILED'" in training.output()
    assert training.output().count("Trying to restart job") == 1
    check_it_went_on(training, reference)


def test_a_requeued_training_goes_on_as_the_same_job(
    training: Cluster, reference: Reference
) -> None:
    training.edit_profile(
        ("slurm_partition: main ", "slurm_partition: spot "),
        ("# slurm-requeue: true", "slurm-requeue: true"),
    )
    with training.started(trained(0)) as snakemake:
        number = training.wait_until_training(0, pace=1)
        run("scontrol", "requeue", number)
        wait_for(lambda: saved(training), "no state is saved")
        training.pace(0)
        wait_for(lambda: training.node.jobs()[number] == "PENDING", "the job is not in the queue")
        # Otherwise SLURM waits two minutes.
        run("scontrol", "update", f"JobId={number}", "StartTime=now")
        assert training.end(snakemake) == 0, training.output()[-4000:]
    assert "Trying to restart job" not in training.output()
    check_it_went_on(training, reference)


def test_a_training_is_warned_before_its_time_is_up(
    training: Cluster, reference: Reference
) -> None:
    # The profile's signal comes two minutes before the end: soon after this job began.
    training.edit_profile(("runtime: attempt * 1440}", "runtime: 3 if attempt == 1 else 60}"))
    training.pace(3)
    with training.started(trained(0)) as snakemake:
        wait_for(lambda: saved(training), "no state is saved", seconds=120)
        training.pace(0)
        assert training.end(snakemake) == 0, training.output()[-4000:]
    assert "'FAILED'" in training.output()
    check_it_went_on(training, reference)
