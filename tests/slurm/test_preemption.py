"""Jobs that have to give way save their state in the grace time and go on from there."""

from __future__ import annotations

from tests.slurm.conftest import Cluster, Reference, trained
from tests.slurm.one_node import give_way, run, wait_for


def saved(cluster: Cluster) -> bool:
    return "state saved at step" in cluster.log(0)


def check_it_went_on(cluster: Cluster, reference: Reference) -> None:
    assert "continuing at step" in cluster.log(0)
    assert cluster.weights(0) == reference.weights[0]


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


def test_a_preempted_array_is_resubmitted(training: Cluster, reference: Reference) -> None:
    # Its tasks are told only when their grace time is over.
    training.edit_profile(('slurm-array-jobs: "', 'slurm-array-jobs: "classify,'))
    with training.started(trained(0), trained(1)) as snakemake:
        wait_for(lambda: "step 10/" in training.log(0), "no training", seconds=300)
        training.pace(3)
        give_way()
        wait_for(lambda: "Trying to restart job" in training.output(), "no retry", seconds=300)
        training.pace(0)
        assert training.end(snakemake) == 0, training.output()[-4000:]
    assert [training.weights(seed) for seed in (0, 1)] == reference.weights[:2]


def test_a_requeued_training_goes_on_as_the_same_job(
    training: Cluster, reference: Reference
) -> None:
    # Where there is no grace time: in one, it saves its state and ends, as above, and SLURM puts
    # nothing back that has ended.
    training.edit_profile(
        ("slurm_partition: main ", "slurm_partition: spot "),
        ("slurm-no-requeue: true", "slurm-requeue: true"),
    )
    with training.started(trained(0)) as snakemake:
        number = training.wait_until_training(0, pace=1)
        give_way()
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
        wait_for(lambda: saved(training), "no state is saved", seconds=300)
        training.pace(0)
        assert training.end(snakemake) == 0, training.output()[-4000:]
    assert "'FAILED'" in training.output()
    check_it_went_on(training, reference)
