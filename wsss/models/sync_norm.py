"""Batch normalisation over the images of all processes that train together.

torch's own ``SyncBatchNorm`` needs GPUs, and does not know the layers of timm that end with an
activation. This one works on every device: mean and variance are those of the whole batch, joined
from each process's own (Chan, Golub & LeVeque, "Updating Formulae and a Pairwise Algorithm for
Computing Sample Variances", 1979), and so is the gradient (Ioffe & Szegedy, ICML 2015, section 3).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wsss.distributed.collectives import gathered, total


class Synchronised:
    """What turns a kind of batch normalisation into one over all processes."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W) and, in timm's kind, activate."""
        norm: Any = self
        if not norm.training:
            inference: Tensor = super().forward(x)  # type: ignore[misc]
            return inference
        y = _normalise(norm, x)
        activated: Tensor = norm.act(norm.drop(y)) if hasattr(norm, "act") else y
        return activated


@cache
def _kind(plain: Any) -> Any:
    return type(f"Sync{plain.__name__}", (Synchronised, plain), {})


def synchronise(network: nn.Module) -> None:
    """Let every batch normalisation inside ``network`` see the images of all processes.

    Layers change their class and nothing else, so that names, values and references stay.

    Raises TypeError: a kind of batch normalisation that this module does not know.
    """
    for name, module in network.named_modules():
        if not isinstance(module, _BatchNorm) or is_synchronised(module):
            continue
        # By its name: importing timm takes seconds, and networks without it do not need it.
        if type(module) is not nn.BatchNorm2d and type(module).__name__ != "BatchNormAct2d":
            raise TypeError(f"{name} is a {type(module).__name__}: it cannot be synchronised")
        kind: Any = type(module)
        module.__class__ = _kind(kind)


def is_synchronised(module: object) -> bool:
    """Whether a layer sees the images of all processes."""
    return isinstance(module, Synchronised)


def _normalise(norm: _BatchNorm, x: Tensor) -> Tensor:
    weight: Tensor = norm.weight if norm.affine else x.new_ones(x.shape[1])
    bias: Tensor = norm.bias if norm.affine else x.new_zeros(x.shape[1])
    found: tuple[Tensor, ...] = _SyncBatchNorm.apply(x, weight, bias, norm.eps)  # type: ignore[no-untyped-call]
    y, mean, variance, number = found
    _track(norm, mean, variance * (number / (number - 1)))
    return y


@torch.no_grad()
def _track(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Move running statistics as torch does, to the unbiased variance."""
    if not norm.track_running_stats or norm.running_mean is None or norm.running_var is None:
        return
    momentum = norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if momentum is None:
            momentum = 1.0 / float(norm.num_batches_tracked)
    assert momentum is not None
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
    norm.running_var.lerp_(variance.to(norm.running_var.dtype), momentum)


class _SyncBatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = x.float()
        variance, mean = torch.var_mean(wide, (0, 2, 3), correction=0)
        own = mean.new_full((1,), float(x.numel() // x.shape[1]))
        mean, variance, number = _joined(mean, variance, own)
        scale = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, scale, number)
        y = (wide - _wide(mean)) * _wide(scale * weight.float()) + _wide(bias.float())
        ctx.mark_non_differentiable(mean, variance, number)
        return y.to(x.dtype), mean, variance, number

    @staticmethod
    def backward(
        ctx: Any, gradient: Tensor, *_others: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, scale, number = ctx.saved_tensors
        wide = gradient.float()
        unit = (x.float() - _wide(mean)) * _wide(scale)
        of_bias, of_weight = wide.sum((0, 2, 3)), (wide * unit).sum((0, 2, 3))
        # Parameters get this process's share: gradients are summed later, with all others.
        means = total(torch.stack([of_bias, of_weight])) / number
        inner = wide - _wide(means[0]) - unit * _wide(means[1])
        of_x = inner * _wide(scale * weight.float())
        return of_x.to(x.dtype), of_weight.to(weight.dtype), of_bias.to(weight.dtype), None


def _joined(mean: Tensor, variance: Tensor, number: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance and number of values of all processes together, from those of each."""
    rows = gathered(torch.cat([mean, variance, number])[None])
    means, variances = rows[:, : len(mean)], rows[:, len(mean) : -1]
    numbers = rows[:, -1:]
    shares = numbers / numbers.sum()
    joint = (means * shares).sum(0)
    within = (variances * shares).sum(0)
    return joint, within + ((means - joint).square() * shares).sum(0), numbers.sum(0)


def _wide(values: Tensor) -> Tensor:
    """(C,) as (C, 1, 1)."""
    return values[:, None, None]
