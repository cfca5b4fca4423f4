"""Starting a stage once a GPU, by torchrun's agent: one on each node."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from wsss.errors import UserError
from wsss.interrupt import SIGNALS, Interrupted

if TYPE_CHECKING:
    from torch.distributed.launcher.api import LaunchConfig

log = logging.getLogger(__name__)

# Names where the agents of several nodes meet, HOST:PORT; a SLURM job does without.
MEETING = "WSSS_RENDEZVOUS"
# Exit status of a process whose peers have gone, see :mod:`wsss.distributed.group`.
LOST = 76
# Seconds that processes have to finish their step and save their state once a signal asked to end,
# before they are killed: a little less than the 120 that the profile for SLURM warns ahead. torch
# gives 30, and reads its variable, which whoever needs more may set.
PATIENCE = 110
_PATIENCE = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
_PORTS = (20000, 20000)  # first, number: above the well-known, below the ephemeral ones


class Meeting(NamedTuple):
    """Where agents meet (HOST:PORT) and what they call the run."""

    endpoint: str
    name: str


def launch(arguments: Sequence[str], nodes: int, processes: int) -> int:
    """Run ``wsss ARGUMENTS`` in ``processes`` processes of this node; return the exit status.

    With several nodes the same command runs on each of them, as `srun` starts it.

    Raises:
        Interrupted: a signal asked to end.
        UserError: a process was killed, or it is not known where the nodes meet.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    _quieten()
    config = agent_config(meeting_point(nodes), nodes, processes)
    command = ["-m", "wsss", *arguments]
    log.info("starting %d processes on each of %d nodes", processes, nodes)
    try:
        elastic_launch(config, sys.executable)(*command)
    except SignalException as stop:
        raise Interrupted(int(stop.sigval)) from stop
    except ChildFailedError as error:
        return outcome({rank: failure.exitcode for rank, failure in error.failures.items()})
    return 0


def agent_config(meeting: Meeting, nodes: int, processes: int) -> LaunchConfig:
    """Return what torchrun's agent is told."""
    from torch.distributed.launcher.api import LaunchConfig

    os.environ.setdefault(_PATIENCE, str(PATIENCE))  # as an argument, older torch does not know it
    return LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=processes,
        run_id=meeting.name,
        rdzv_endpoint=meeting.endpoint,
        rdzv_backend="c10d",
        max_restarts=0,
    )


def outcome(codes: dict[int, int]) -> int:
    """Return the exit status that stands for those of the processes that failed.

    Raises:
        Interrupted: a signal asked all of them to end.
        UserError: one was killed, which it could not say itself.
    """
    # One that a signal asked to end before it could listen, as it asks those that are left, has the
    # status of one that listened.
    codes = {rank: 128 - code if -code in SIGNALS else code for rank, code in codes.items()}
    killed = {rank: -code for rank, code in codes.items() if code < 0}
    if killed:
        rank, number = min(killed.items())
        raise UserError(_killed(rank, number))
    told = [code for code in codes.values() if code != LOST]
    if not told:
        raise UserError("the training processes lost each other: the log says how")
    if all(code > 128 for code in told):
        raise Interrupted(max(told) - 128)
    return 1


def _killed(rank: int, number: int) -> str:
    """Say how a process ended; only SIGKILL is how a lack of memory ends one."""
    how = f"training process {rank} was killed by {signal.Signals(number).name}"
    if number != signal.SIGKILL:
        return f"{how}: see the log"
    return (
        f"{how}, most likely for lack of memory: lower batch or distributed.processes, or give the "
        "job more memory"
    )


def meeting_point(nodes: int) -> Meeting:
    """Say where the agents of ``nodes`` nodes meet: one alone, at a free port of its own."""
    if nodes == 1:
        return Meeting("localhost:0", uuid.uuid4().hex)
    job = os.environ.get("SLURM_JOB_ID", "")
    given = os.environ.get(MEETING)
    if given:
        return Meeting(given, f"wsss-{job or given}")
    if not job.isdecimal():
        raise UserError(
            f"distributed.nodes is {nodes}, but this is no SLURM job: start the command on each "
            f"node, with {MEETING}=HOST:PORT of one of them"
        )
    first, number = _PORTS
    return Meeting(f"{_first_host()}:{first + int(job) % number}", f"wsss-{job}")


def _first_host() -> str:
    """The first node of the SLURM job."""
    nodes = os.environ.get("SLURM_JOB_NODELIST", "")
    try:
        run = subprocess.run(
            ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True
        )
        return run.stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise UserError(
            f"cannot find the first node of {nodes!r} (scontrol show hostnames): set {MEETING}"
            "=HOST:PORT"
        ) from error


def _quieten() -> None:
    """Let the processes speak for themselves: the agent reports every signal and exit status."""
    for logger in _loggers("torch.distributed"):
        logger.setLevel(logging.CRITICAL)


def _loggers(prefix: str) -> Iterable[logging.Logger]:
    names = [name for name in logging.Logger.manager.loggerDict if name.startswith(prefix)]
    return [logging.getLogger(name) for name in names]
