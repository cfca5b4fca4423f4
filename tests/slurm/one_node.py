"""A real SLURM on this machine: daemons started by hand, fake GPUs, no accounting.

It has one node. A second one, this machine under another name, is started by tests that need two;
they share a partition.

Its configuration has to be in ``/etc/slurm``: jobs that Snakemake starts do not inherit
``SLURM_CONF``. A configuration that is not ours is left alone.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

MARK = "# Made by the SLURM tests of wsss; they remove it.\n"
ETC = Path("/etc/slurm")
FILES = ("slurm.conf", "gres.conf")
LOCK = Path("/run/lock/wsss-slurm-tests")
GPUS = 2
# More than a small machine has: what jobs ask for is not what the tiny ones use.
CPUS = 4
MEMORY_MB = 100_000
SECOND_PORT = 6828
# Seconds from a pre-emption's SIGTERM to its SIGKILL.
GRACE = 30

CONFIG = """\
# folder {folder}
ClusterName=onenode
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
MinJobAge=3600
KillWait=5
AccountingStorageType=accounting_storage/none
GresTypes=gpu
NodeName=DEFAULT CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus} State=UNKNOWN
NodeName={host} NodeAddr=127.0.0.1
NodeName={second} NodeAddr=127.0.0.1 Port={port}
PartitionName=DEFAULT Nodes={host} State=UP MaxTime=INFINITE
PartitionName=main Default=YES PriorityTier=1 PreemptMode=CANCEL GraceTime={grace}
PartitionName=spot PriorityTier=1 PreemptMode=REQUEUE GraceTime=0
PartitionName=urgent PriorityTier=10 PreemptMode=OFF
PartitionName=both Nodes={host},{second} PriorityTier=1 PreemptMode=CANCEL GraceTime={grace}
"""


class UnavailableError(Exception):
    """SLURM cannot be had here; the message says why."""


def run(*command: str) -> str:
    """Run a command and return what it prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout.strip()


@dataclass
class OneNode:
    """A running SLURM with its files in ``folder``."""

    folder: Path
    lock: IO[str]

    def start_controller(self) -> None:
        """Start the controller and wait until it answers."""
        run("slurmctld")
        wait_for(self._controller_answers, "the controller does not answer")

    def _controller_answers(self) -> bool:
        """Whether one is up, and this one: another may hold its port."""
        number = self.folder / "slurmctld.pid"
        own = number.exists() and Path("/proc", number.read_text().strip()).exists()
        return own and "UP" in output("scontrol", "ping")

    def start_second(self) -> None:
        """Start the second node if it does not run. Raises UnavailableError."""
        if (self.folder / f"slurmd.{second()}.pid").exists():
            return
        hosts = self.folder / "hosts"
        hosts.write_text(f"{Path('/etc/hosts').read_text()}\n127.0.0.1 {second()}\n")
        renamed = f"hostname {second()} && mount --bind {hosts} /etc/hosts && exec slurmd"
        try:
            run("unshare", "--uts", "--mount", "sh", "-c", renamed)
        except (OSError, RuntimeError) as why:
            raise UnavailableError(f"a second node needs a name of its own: {why}") from None
        wait_for(lambda: states("both") == {"idle"}, "no second node")

    def stop_controller(self) -> None:
        """Kill the controller; jobs go on."""
        end(self.folder / "slurmctld.pid")

    def jobs(self) -> dict[str, str]:
        """Return states of the jobs that are waiting or running, by number."""
        lines = run("squeue", "--noheader", "--array", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def job_of(self, rule: str, *states: str) -> str | None:
        """Return the number of a job of ``rule`` (a part of its comment) in one of ``states``."""
        for line in run("squeue", "--noheader", "--array", "--format=%i %T %k").splitlines():
            number, state, comment = line.split(maxsplit=2)
            if state in (states or ("RUNNING",)) and rule in comment:
                return number
        return None

    def log(self) -> str:
        """Return what the daemons wrote, for the message of a failing test."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def stop(self) -> None:
        """End all jobs and daemons and take our configuration away."""
        with suppress(RuntimeError):
            run("scancel", "--user=root")
        with suppress(AssertionError, RuntimeError):
            wait_for(lambda: not self.jobs(), "jobs do not end", seconds=20)
        clear(self.folder)
        self.lock.close()


def start(folder: Path) -> OneNode:
    """Start SLURM, installing it where that is possible. Raises UnavailableError."""
    lock = _claim()
    _install()
    for name in ("state", f"spool.{first()}", f"spool.{second()}", "gpu"):
        (folder / name).mkdir(parents=True)
    _configure(folder)
    _start_munge()
    node = OneNode(folder, lock)
    try:
        node.start_controller()
        run("slurmd")
        wait_for(lambda: states("main") == {"idle"}, "no idle node")
    except AssertionError as error:
        clear(folder)
        raise RuntimeError(node.log()[-3000:]) from error
    return node


def give_way() -> None:
    """Submit a job that needs the whole node now."""
    run("sbatch", "--partition=urgent", f"--cpus-per-task={CPUS}", "--output=/dev/null", "--wrap=:")


def clear(folder: Path) -> None:
    """End the daemons of a SLURM of ours and remove its configuration."""
    # By its configuration, should its folder be gone; then by number, should it not answer.
    output("scontrol", "shutdown")
    for pidfile in sorted(folder.glob("slurm*.pid")):
        end(pidfile)
    for name in FILES:
        (ETC / name).unlink(missing_ok=True)


def first() -> str:
    """Return the name of the node."""
    return socket.gethostname().partition(".")[0]


def second() -> str:
    """Return the name of the second node. SLURM sorts nodes, and where a job has both it begins on
    the first, whose name every machine knows."""
    return f"{first()}-second"


def states(partition: str) -> set[str]:
    """Return the states of the nodes of a partition."""
    return set(output("sinfo", "-h", "-p", partition, "-o", "%T").splitlines())


def end(pidfile: Path) -> None:
    """Kill the daemon whose number is in ``pidfile`` and wait for its end."""
    with suppress(FileNotFoundError, ValueError, ProcessLookupError):
        number = int(pidfile.read_text())
        os.kill(number, signal.SIGKILL)
        wait_for(lambda: not Path(f"/proc/{number}").exists(), "a daemon does not end")
    pidfile.unlink(missing_ok=True)


def output(*command: str) -> str:
    """Return what a command prints, nothing if it fails."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def wait_for(condition: object, failure: str, seconds: float = 30) -> None:
    """Wait until ``condition()`` holds; fail with a message after some seconds."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, failure
        time.sleep(0.1)


def _claim() -> IO[str]:
    """Keep other runs of these tests out and clear what a killed one left."""
    if os.geteuid() != 0:
        raise UnavailableError("starting SLURM needs root")
    lock = LOCK.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UnavailableError(
            "another run of these tests uses the SLURM of this machine"
        ) from None
    for name in FILES:
        there = ETC / name
        if there.exists() and not there.read_text().startswith(MARK):
            raise UnavailableError(f"{there} is not of these tests: there is a SLURM already")
    if (ETC / "slurm.conf").exists():
        line = (ETC / "slurm.conf").read_text().splitlines()[1]
        clear(Path(line.removeprefix("# folder ")))
    return lock


def _install() -> None:
    """Install SLURM and munge, which signs its messages."""
    if shutil.which("slurmctld") and shutil.which("munged"):
        return
    if not shutil.which("apt-get"):
        raise UnavailableError("SLURM is not installed, and there is no apt-get to install it with")
    install = ("apt-get", "install", "-y", "-qq", "--no-install-recommends", "slurm-wlm", "munge")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (("apt-get", "update", "-qq"), install):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"SLURM could not be installed: {done.stderr.strip()[-300:]}")


def _configure(folder: Path) -> None:
    """Write the configuration, and GPUs that are copies of /dev/null."""
    config = CONFIG.format(
        **{"folder": folder, "host": first(), "second": second(), "port": SECOND_PORT},
        **{"cpus": CPUS, "memory": MEMORY_MB, "gpus": GPUS, "grace": GRACE},
    )
    gres = ""
    for number in range(GPUS):
        device = folder / "gpu" / str(number)
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        gres += f"NodeName={first()},{second()} Name=gpu File={device}\n"
    ETC.mkdir(exist_ok=True)
    (ETC / "slurm.conf").write_text(MARK + config)
    (ETC / "gres.conf").write_text(MARK + gres)


def _start_munge() -> None:
    """Start munge where it does not run yet."""
    if subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode == 0:
        return
    if not Path("/etc/munge/munge.key").exists():
        run("mungekey", "-c")
    run("install", "-d", "-o", "munge", "-g", "munge", "/run/munge")
    run("runuser", "-u", "munge", "--", "munged")
