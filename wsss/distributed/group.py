"""The group of processes that train together: joining it, and leaving it with one error."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from wsss.distributed.launch import LOST
from wsss.distributed.place import place
from wsss.errors import UserError
from wsss.interrupt import Interrupted, ignore

if TYPE_CHECKING:
    # Private to torch, and absent where it was built without its distributed part.
    from torch._C._distributed_c10d import Store

log = logging.getLogger(__name__)

# Between two collectives lie a step, or the reading of data before the first; not hours.
_PATIENCE = timedelta(minutes=30)
_FAILURES = "wsss/failures"


class LostPeerError(RuntimeError):
    """Another process of the group is gone; it, or who started it, says why."""


def count() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process among them; 0 writes."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Train together with the other processes that torchrun started; nothing if it started none.

    Tensors on the CPU go through gloo, those on GPUs through NCCL. An error ends all processes,
    but only that which fails first says why: the others leave with an exit status alone.

    Args:
        device: ``compute.device``.

    Raises:
        UserError: a GPU each is asked for that is not there.
        SystemExit: another process was the first to fail, or a signal asked to end.
    """
    here = place()
    if here.size == 1:
        yield
        return
    threading.Thread(target=_follow_parent, args=(os.getppid(),), daemon=True).start()
    cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    store, number, size = next(rendezvous("env://", timeout=_PATIENCE))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        store=store,
        rank=number,
        world_size=size,
        timeout=_PATIENCE,
    )
    try:
        _claim_gpu(here.local, device, cuda)
        yield
    except (LostPeerError, dist.DistError) as error:
        # Who started the processes asks those that are left to end, as this one does already, and
        # has the line for the terminal.
        ignore()
        log.error("process %d lost another: %s", number, _first_line(error.__cause__ or error))
        log.debug("left alone", exc_info=True)
        raise SystemExit(LOST) from error
    except Interrupted as stop:
        # Who started the processes says so: it was told to stop, or stops those that are left.
        raise SystemExit(stop.code) from stop
    except Exception as error:
        ignore()
        if not _first_to_fail(store):
            log.debug("failed after another process", exc_info=True)
            raise SystemExit(1) from error
        raise
    finally:
        with suppress(Exception):  # peers may be gone
            dist.destroy_process_group()


def _claim_gpu(local: int, device: str, cuda: bool) -> None:
    if not cuda:
        return
    if ":" in device:
        raise UserError(
            f"compute.device is {device!r} but distributed asks for several processes, each on a "
            "GPU of its own: use 'auto' or 'cuda'"
        )
    found = torch.cuda.device_count()
    if local >= found:
        raise UserError(
            f"process {local} of this machine needs a GPU of its own but torch sees {found}: "
            "lower distributed.processes, or set compute.device to 'cpu'"
        )
    torch.cuda.set_device(local)


def _follow_parent(parent: int) -> None:
    """Stop as if told to when whoever started the processes is gone: nobody else would."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def _first_to_fail(store: Store) -> bool:
    try:
        return bool(store.add(_FAILURES, 1) == 1)
    except (RuntimeError, dist.DistError):
        # Whoever keeps the store has ended: it was first.
        return False
