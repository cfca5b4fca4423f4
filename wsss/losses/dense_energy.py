"""Dense-CRF energy of a soft segmentation, in plain tensors and bounded memory.

Source: Tang et al., "On Regularized Losses for Weakly-supervised CNN Segmentation", ECCV 2018,
with the gate of their published code, as ToCo and MCC use it. The official code filters on the
permutohedral lattice, a compiled extension that approximates the Gaussian; here the sum over all
pairs is exact, on a grid of a bounded number of cells.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from wsss.labels import IGNORE
from wsss.precision import full_precision

# Kernel entries that exist at once: 64 MiB of float32.
ENTRIES = 1 << 24


def dense_energy(
    images: Tensor,
    probabilities: Tensor,
    valid: Tensor,
    masks: Tensor,
    sigma_rgb: float,
    sigma_xy: float,
    scale: float,
    cells: int,
) -> Tensor:
    """Energy -(1/B) sum S . (G * (W S)) at a reduced size.

    S are the probabilities, 0 outside the image. W_ij is the Gaussian of colour and place, not
    normalised and with W_ii = 1. The gate G is ``valid`` minus the highest probability, where
    positive, and 1 where the mask says 255: only what is uncertain or unlabelled pays. Its
    gradient is that of the official code, -(2/B) G * (W S), which takes the gate as constant and
    W S as if weighted by the gate of either end.

    Above ``cells`` cells, S is averaged over squares of cells that are counted by their number,
    so that the value keeps its size; a sample of the images' pixels stands for their colours.

    Args:
        images: (B, 3, H, W) RGB in [0, 1].
        probabilities: (B, K, H, W).
        valid: (B, H, W) bool: inside the image.
        masks: (B, H, W) class ids, 255 where nothing is known.
        sigma_rgb: in grey levels of 0 to 255.
        sigma_xy: in pixels of the full size.
        scale: of the reduced size; 0.5 in ToCo and MCC.
        cells: at most so many cells an image; the cost is their square.

    Returns:
        Scalar float32. Memory beside the arguments: 64 MiB and 2 B K ``cells`` numbers.
    """
    with full_precision(probabilities):
        size = tuple(max(1, int(side * scale)) for side in images.shape[2:])
        soft = F.interpolate(probabilities.float(), size, mode="bilinear", align_corners=False)
        step = _step(size, cells)
        grid = (max(1, size[0] // step), max(1, size[1] // step))
        soft = soft if step == 1 else F.adaptive_avg_pool2d(soft, grid)
        colours = F.interpolate(images.float(), grid, mode="nearest") * 255
        inside = F.interpolate(valid[:, None].float(), grid, mode="nearest")
        unknown = F.interpolate(masks[:, None].float(), grid, mode="nearest") == IGNORE
        gate = (inside - soft.detach().amax(1, keepdim=True)).relu()
        gate = torch.where(unknown, 1.0, gate)
        pitch = (images.shape[2] / grid[0], images.shape[3] / grid[1])
        points = kernel_points(colours, sigma_rgb, sigma_xy, pitch)
        many = (size[0] * size[1] / (grid[0] * grid[1])) ** 2
        return many * gated_energy(soft * inside, gate, points)


def _step(size: tuple[int, ...], cells: int) -> int:
    """Smallest square of cells that leaves at most ``cells`` of them."""
    step = max(1, math.ceil(math.sqrt(size[0] * size[1] / cells)))
    while step > 1 and (size[0] // (step - 1)) * (size[1] // (step - 1)) <= cells:
        step -= 1
    return step


def kernel_points(
    colours: Tensor, sigma_rgb: float, sigma_xy: float, pitch: tuple[float, float]
) -> Tensor:
    """Points whose distances the Gaussian is of.

    Args:
        colours: (B, 3, h, w) in [0, 255].
        sigma_xy: in the unit of ``pitch``.
        pitch: rows and columns from one cell to the next.

    Returns:
        (B, hw, 5).
    """
    height, width = colours.shape[2:]
    rows = torch.arange(height, device=colours.device) * pitch[0] / sigma_xy
    columns = torch.arange(width, device=colours.device) * pitch[1] / sigma_xy
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
    places = places.to(colours.dtype).expand(len(colours), -1, -1, -1)
    return torch.cat([colours / sigma_rgb, places], 1).flatten(2).transpose(1, 2)


def gated_energy(soft: Tensor, gate: Tensor, points: Tensor) -> Tensor:
    """-(1/B) sum S . (G * (W S)) with gradient -(2/B) G * (W S).

    Args:
        soft: (B, K, h, w).
        gate: (B, 1, h, w), taken as constant.
        points: (B, hw, 5) of :func:`kernel_points`.
    """
    apply: Any = _GatedEnergy.apply  # untyped in torch
    energy: Tensor = apply(soft.flatten(2).transpose(1, 2), gate.flatten(2).transpose(1, 2), points)
    return energy


def filter_points(values: Tensor, points: Tensor) -> Tensor:
    """Sum over all j of exp(-|p_i - p_j|^2 / 2) v_j, some rows at a time.

    Args:
        values: (B, N, K).
        points: (B, N, P).

    Returns:
        (B, N, K).
    """
    batch, count = points.shape[:2]
    # Differences of large squares lose digits; those of centred points are small.
    points = points - points.mean(1, keepdim=True)
    half = points.square().sum(2) / 2
    rows = max(1, ENTRIES // max(1, batch * count))
    parts = []
    for start in range(0, count, rows):
        stop = min(count, start + rows)
        exponent = points[:, start:stop] @ points.transpose(1, 2)
        exponent -= half[:, start:stop, None]
        exponent -= half[:, None, :]
        parts.append(exponent.clamp_(max=0).exp_() @ values)
    return torch.cat(parts, 1)


class _GatedEnergy(torch.autograd.Function):
    """The filtered map is both the energy and its gradient, so that it is made once."""

    @staticmethod
    def forward(ctx: Any, soft: Tensor, gate: Tensor, points: Tensor) -> Tensor:
        gated = gate * filter_points(soft, points)
        ctx.save_for_backward(gated)
        return -(soft * gated).sum() / len(soft)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (gated,) = ctx.saved_tensors
        return -2 * gradient * gated / len(gated), None, None
