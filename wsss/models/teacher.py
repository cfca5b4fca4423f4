"""A network that follows another one: its weights are an exponential moving average.

Source: Tarvainen & Valpola, "Mean teachers are better role models", NeurIPS 2017, section 2.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def teacher_of(student: M) -> M:
    """Return a copy that no gradient reaches, in eval mode.

    Its parameters and buffers are its own, so that a checkpoint of the module that holds it
    covers it. The holder must keep it in eval mode.
    """
    return copy.deepcopy(student).requires_grad_(False).eval()


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Set each value of the teacher to momentum * its own + (1 - momentum) * the student's.

    Running statistics are averaged like weights; counters are copied. Equal values stay as they
    are, to the last bit.

    Args:
        teacher, student: of one architecture.
    """
    mine, theirs = (
        dict(m.named_parameters()) | dict(m.named_buffers()) for m in (teacher, student)
    )
    for name, value in mine.items():
        if value.is_floating_point():
            value.lerp_(theirs[name].to(value.dtype), 1 - momentum)
        else:
            value.copy_(theirs[name])


def ramped(momentum: float, step: int) -> float:
    """Momentum at the end of a step, counted from 0: a plain average of what came before until
    ``momentum`` is reached.

    Source: official code of Tarvainen & Valpola, 2017. Without it a layer that starts at random
    stays random in the teacher for 1 / (1 - momentum) steps.
    """
    return min(momentum, 1 - 1 / (step + 1))
