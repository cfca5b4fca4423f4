"""Strong distortion of colours for views of self-supervision, a batch at once on the device.

Geometry stays as it is. Source: the augmentation of DINO (Caron et al., ICCV 2021), with the
numbers of ToCo's and MCC's official code.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.constants import constant
from wsss.data.transforms import colour_jitter

# Numbers in [0, 1) that one image needs.
DRAWS = 9
_GREY = (0.299, 0.587, 0.114)


class Distortion(NamedTuple):
    """How strongly, and how often.

    Attributes:
        jitter: of brightness, contrast, saturation and hue.
        jitter_share, grey_share, blur_share, solarise_share: of images.
        blur: bounds of the Gaussian's standard deviation in pixels.
    """

    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    jitter_share: float = 0.8
    grey_share: float = 0.2
    blur_share: float = 1.0
    blur: tuple[float, float] = (0.1, 2.0)
    solarise_share: float = 0.0


def distort(images: Tensor, uniform: Tensor, how: Distortion) -> Tensor:
    """Jitter, make grey, blur and solarise some images, in this order.

    Args:
        images: (B, 3, H, W) in [0, 1].
        uniform: (B, DRAWS) in [0, 1).
    """
    factors = _factors(uniform, how)
    images = colour_jitter(images, factors)
    weights = constant(_GREY, images)[:, None, None]
    grey = (images * weights).sum(1, keepdim=True).expand_as(images)
    images = torch.where(_chosen(uniform[:, 5], how.grey_share), grey, images)
    low, high = how.blur
    blurred = blur(images, low + (high - low) * uniform[:, 7], high)
    images = torch.where(_chosen(uniform[:, 6], how.blur_share), blurred, images)
    solarised = torch.where(images >= 0.5, 1 - images, images)
    return torch.where(_chosen(uniform[:, 8], how.solarise_share), solarised, images)


def _chosen(uniform: Tensor, share: float) -> Tensor:
    return (uniform < share)[:, None, None, None]


def _factors(uniform: Tensor, how: Distortion) -> Tensor:
    """Factors (B, 4) for :func:`colour_jitter`; those of images left alone change nothing."""
    neutral = constant([1.0, 1.0, 1.0, 0.0], uniform)
    drawn = neutral + (2 * uniform[:, 1:5] - 1) * constant(how.jitter, uniform)
    return torch.where(uniform[:, :1] < how.jitter_share, drawn, neutral)


def blur(images: Tensor, sigma: Tensor, widest: float) -> Tensor:
    """Blur each image by its own Gaussian, cut off at three times the widest.

    Args:
        images: (B, 3, H, W).
        sigma: (B,) in pixels, positive, at most ``widest``.
    """
    count, channels, height, width = images.shape
    radius = min(int(3 * widest + 0.5), height - 1, width - 1)
    line = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernels = torch.exp(-0.5 * (line / sigma[:, None].to(images.dtype)).square())
    kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(channels, 0)[:, None]
    flat = F.pad(images.reshape(1, count * channels, height, width), (radius,) * 4, mode="reflect")
    flat = F.conv2d(flat, kernels[..., None], groups=count * channels)
    flat = F.conv2d(flat, kernels[:, :, None], groups=count * channels)
    return flat.view(count, channels, height, width)
