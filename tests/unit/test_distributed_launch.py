"""Starting several processes: where they meet, what their exit statuses mean."""

from __future__ import annotations

import os
import signal

import pytest

from wsss.distributed.launch import LOST, MEETING, PATIENCE, agent_config, meeting_point, outcome
from wsss.distributed.parts import check_batches, part_of
from wsss.distributed.place import ALONE, Place, place
from wsss.errors import UserError
from wsss.interrupt import Interrupted


@pytest.mark.parametrize("length", range(9))
@pytest.mark.parametrize("size", range(1, 5))
def test_parts_follow_one_another_and_differ_by_one(length: int, size: int) -> None:
    rows = list(range(length))
    parts = [rows[part_of(length, rank, size)] for rank in range(size)]
    assert [row for part in parts for row in part] == rows
    lengths = [len(part) for part in parts]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] - lengths[-1] <= 1


def test_batches_that_cannot_be_shared_are_refused() -> None:
    check_batches(lambda _: [[1, 2, 3, 4]], 2, 1)
    with pytest.raises(UserError, match="2 images cannot be shared by 3 processes"):
        check_batches(lambda _: [[1, 2]], 3, None)
    with pytest.raises(UserError, match="more passes than others"):
        check_batches(lambda _: [[1, 2, 3]], 2, 1)


def test_a_loss_that_shares_a_part_of_the_batch_is_asked_at_the_start() -> None:
    def half(batch: int) -> int:
        return batch // 2

    check_batches(lambda _: [[1, 2, 3, 4]], 2, None, half)
    with pytest.raises(UserError, match="4 images, of which the loss compares 2, cannot be shared"):
        check_batches(lambda _: [[1, 2, 3, 4]], 3, None, half)


def test_a_process_is_alone_unless_torchrun_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert place() == ALONE
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UserError, match="start it with torchrun"):
        place()
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert place() == Place(3, 4, 1)


def test_the_process_that_was_killed_is_named() -> None:
    with pytest.raises(UserError, match="process 1 was killed by SIGKILL"):
        outcome({0: -signal.SIGTERM, 1: -signal.SIGKILL, 2: LOST})


def test_lack_of_memory_is_no_guess_at_other_signals() -> None:
    with pytest.raises(UserError, match="lack of memory"):
        outcome({0: -signal.SIGKILL})
    with pytest.raises(UserError, match="killed by SIGSEGV: see the log"):
        outcome({0: LOST, 1: -signal.SIGSEGV})


def test_one_that_a_signal_ended_before_it_listened_was_interrupted() -> None:
    with pytest.raises(Interrupted) as stop:
        outcome({0: -signal.SIGTERM, 1: 143, 2: LOST})
    assert stop.value.code == 143
    assert outcome({0: -signal.SIGTERM, 1: 1}) == 1


@pytest.mark.parametrize(("said", "seconds"), [(None, PATIENCE), ("7", 7)])
def test_processes_have_time_to_save(
    said: str | None, seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
    monkeypatch.setenv(name, said or "")  # so that it is as before in the end
    if said is None:
        monkeypatch.delenv(name)
    config = agent_config(meeting_point(1), 1, 2)
    assert os.environ[name] == str(seconds)
    # Older torch knows neither the variable nor the field.
    assert getattr(config, "shutdown_timeout", seconds) == seconds


def test_one_that_said_why_it_failed_is_not_spoken_for() -> None:
    assert outcome({0: LOST, 1: 1}) == 1


def test_an_interruption_of_all_is_one() -> None:
    with pytest.raises(Interrupted) as stop:
        outcome({0: 143, 1: 143})
    assert stop.value.code == 143


def test_nodes_need_a_place_to_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", MEETING):
        monkeypatch.delenv(name, raising=False)
    assert meeting_point(1).endpoint == "localhost:0"
    with pytest.raises(UserError, match="this is no SLURM job"):
        meeting_point(2)
    monkeypatch.setenv(MEETING, "first:29500")
    assert meeting_point(2).endpoint == "first:29500"
