"""What processes that train together tell each other; with one process, nothing is done.

All processes must call the same functions in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from wsss.distributed.group import LostPeerError, count, rank
from wsss.distributed.parts import part_of
from wsss.errors import UserError

Fields = TypeVar("Fields", bound=tuple[Any, ...])

# Values a message of gradients: few messages, and little memory beside the gradients.
_BUCKET = 8 * 2**20


@contextmanager
def _together() -> Iterator[None]:
    """Tell an error of the connection from one of our own, such as a GPU that is full."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (dist.DistError, RuntimeError) as error:
        raise LostPeerError("another process of this training has ended") from error


def gathered(x: Tensor) -> Tensor:
    """Return the rows of all processes, in their order: that of the global batch.

    Differentiable: a row's gradient is the sum of what all processes have for it.

    Args:
        x: (n, ...) of any type, n may differ between processes.
    """
    if count() == 1:
        return x
    result: Tensor = _Gather.apply(x)  # type: ignore[no-untyped-call]
    return result


def gathered_fields(fields: Fields) -> Fields:
    """Apply :func:`gathered` to each tensor of a named tuple."""
    if count() == 1:
        return fields
    kind: Any = type(fields)
    found: Fields = kind(*(gathered(one) for one in fields))
    return found


def mine(x: Tensor) -> Tensor:
    """Return this process's part of (n, ...) rows that all processes have.

    Of a gathered batch these are its own images.

    Raises UserError: there are fewer rows than processes.
    """
    if count() == 1:
        return x
    if len(x) < count():
        raise UserError(
            f"{len(x)} images of a batch cannot be shared by {count()} processes: lower "
            "distributed.processes or raise batch"
        )
    return x[part_of(len(x), rank(), count())]


def total(x: Tensor) -> Tensor:
    """Return the sum over processes of a tensor of one shape; differentiable."""
    if count() == 1:
        return x
    result: Tensor = _Total.apply(x)  # type: ignore[no-untyped-call]
    return result


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        sizes = [row[0] for row in host_table([len(x)])]
        ctx.start, ctx.length = sum(sizes[: rank()]), len(x)
        return _gather(x, sizes)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        summed = _sum(gradient)
        return summed[ctx.start : ctx.start + ctx.length]


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return _sum(x)

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        return _sum(gradient)


def _gather(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """Bytes of equal length, so that any type and any sizes will do."""
    padded = x.new_zeros((max(sizes), *x.shape[1:]))
    padded[: len(x)] = x
    message = padded.reshape(-1).view(torch.uint8)
    parts = [torch.empty_like(message) for _ in sizes]
    with _together():
        dist.all_gather(parts, message)
    rows = [part.view(x.dtype).view(padded.shape) for part in parts]
    return torch.cat([part[:size] for part, size in zip(rows, sizes, strict=True)])


def _sum(x: Tensor) -> Tensor:
    """Sum in float32 where the type is a shorter one; contiguous, the argument stays as it is."""
    wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    summed = wide.detach().clone(memory_format=torch.contiguous_format)
    with _together():
        dist.all_reduce(summed)
    return summed.to(x.dtype)


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up the gradients of all processes.

    A parameter that has one on some processes alone counts as 0 on the others; one without any
    stays without, so that the optimiser leaves it alone as in a single process.
    """
    if count() == 1:
        return
    trained = [p for p in parameters if p.requires_grad]
    used = torch.tensor([p.grad is not None for p in trained], dtype=torch.uint8)
    with _together():
        dist.all_reduce(used, dist.ReduceOp.MAX)
    gradients: list[Tensor] = []
    for parameter, some in zip(trained, used.tolist(), strict=True):
        if some:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        with _together():
            dist.all_reduce(flat)
        start = 0
        for gradient in bucket:
            stop = start + gradient.numel()
            gradient.copy_(flat[start:stop].view(gradient.shape))
            start = stop


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Cut a list into runs of one type, none much longer than a message should be."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and (size + tensor.numel() > _BUCKET or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.numel()
    if bucket:
        yield bucket


def replicate(modules: Iterable[nn.Module]) -> None:
    """Give all processes the state of the first."""
    if count() == 1:
        return
    for module in modules:
        for value in module.state_dict().values():
            message = value.clone(memory_format=torch.contiguous_format).reshape(-1)
            message = message.view(torch.uint8)
            with _together():
                dist.broadcast(message, 0)
            if rank() > 0:
                value.copy_(message.view(value.dtype).view(value.shape))


def host_table(row: Sequence[int]) -> list[list[int]]:
    """Return the rows of all processes; on the host, so that no GPU is waited for."""
    if count() == 1:
        return [list(row)]
    message = torch.tensor(row, dtype=torch.int64)
    parts = [torch.empty_like(message) for _ in range(count())]
    with _together():
        dist.all_gather(parts, message)
    return [part.tolist() for part in parts]


def host_sums(values: dict[str, float]) -> dict[str, float]:
    """Sum numbers over processes, on the host."""
    if count() == 1 or not values:
        return values
    message = torch.tensor(list(values.values()), dtype=torch.float64)
    with _together():
        dist.all_reduce(message)
    return dict(zip(values, message.tolist(), strict=True))


def host_texts(texts: Sequence[str]) -> list[str]:
    """Return the texts of all processes, in their order; none holds a line break."""
    if count() == 1:
        return list(texts)
    data = "".join(f"{text}\n" for text in texts).encode()
    found = gathered(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    return bytes(found.tolist()).decode().splitlines()


def barrier() -> None:
    """Wait for all processes."""
    host_table([0])
