"""Backbones: any timm network, or Wide ResNet-38, as a pyramid of feature maps that normalises its
own input."""

from __future__ import annotations

import logging
import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wsss.config.schema import Backbone as BackboneConfig
from wsss.errors import UserError
from wsss.models import wide_resnet38
from wsss.models.dropout import replace_dropout
from wsss.models.geometry import Geometry, set_geometry
from wsss.models.norms import allow_single_values
from wsss.models.transformers import create, is_transformer
from wsss.models.weights import check_keys, load_initial

# Pixels of the blank image that shows which layers a feature map comes from.
PROBE = 64
# Strides of the seven stages of an EfficientNet that classifies (Tan & Le, ICML 2019, table 1).
TAP_STRIDES = (2, 4, 8, 16, 16, 32, 32)


class Backbone(nn.Module):
    """A timm feature extractor.

    Attributes:
        channels: channels of each level, finest first.
        reductions: stride of each level in pixels.
        frozen_norms: batch normalisation of frozen levels, kept in eval mode.
        mean: (3,) the RGB value in [0, 1] that normalisation maps to zero; padding uses it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        info: Any = network.feature_info
        self.channels: list[int] = list(info.channels())
        self.reductions: list[int] = list(info.reduction())
        self.frozen_norms: list[_BatchNorm] = []
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map (B, 3, H, W) RGB in [0, 1] to feature maps (B, D_i, h_i, w_i), finest first."""
        features: list[Tensor] = self.network(self.normalise(images))
        return features

    def normalise(self, images: Tensor) -> Tensor:
        """Bring (B, 3, H, W) RGB in [0, 1] to the mean and spread the weights were trained on."""
        return (images - self.mean[:, None, None]) / self.std[:, None, None]

    def last(self, count: int) -> list[int]:
        """Which levels are the ``count`` last ones, finest first; one that is short of levels
        repeats its finest."""
        total = len(self.channels)
        return [max(0, total - back) for back in range(count, 0, -1)]

    def taps(self, images: Tensor) -> list[Tensor]:
        """Map (B, 3, H, W) RGB in [0, 1] to seven maps p1..p7 (B, D_i, h_i, w_i), finest first.

        Of a network of seven stages, as all EfficientNets are, they are the outputs of its
        stages. Any other network repeats its levels: p_i is the finest one whose stride is at
        least that of stage i of an EfficientNet, or the last level.
        """
        stages = self._seven_stages()
        if not stages:
            levels = self(images)
            return [levels[index] for index in self._tap_levels()]
        found: list[Tensor] = []
        hooks = [stage.register_forward_hook(lambda _m, _i, x: found.append(x)) for stage in stages]
        try:
            self(images)
        finally:
            for hook in hooks:
                hook.remove()
        return found

    @property
    def tap_channels(self) -> list[int]:
        """Channels of :meth:`taps`."""
        mode = self.training
        self.eval()
        with torch.no_grad():
            maps = self.taps(self.mean.new_zeros(1, 3, PROBE, PROBE))
        self.train(mode)
        return [x.shape[1] for x in maps]

    def _seven_stages(self) -> list[nn.Module]:
        blocks = getattr(self.network, "blocks", None)
        stages = list(blocks) if isinstance(blocks, nn.Sequential) else []
        return stages if len(stages) == len(TAP_STRIDES) else []

    def _tap_levels(self) -> list[int]:
        last = len(self.reductions) - 1
        coarse = [[i for i, r in enumerate(self.reductions) if r >= s] for s in TAP_STRIDES]
        return [found[0] if found and number < 5 else last for number, found in enumerate(coarse)]

    def freeze(self, levels: int, affine: bool = False) -> None:
        """Keep everything that the ``levels`` finest maps are made of as it is: its weights get
        no gradient, its batch normalisation uses and keeps the running statistics.

        What they are made of is read off the autograd graph, so that any network will do.

        Args:
            levels: 0 for none.
            affine: freeze scale and shift of all batch normalisation, too.

        Raises:
            UserError: the network has fewer levels.
        """
        if levels > len(self.channels):
            raise UserError(
                f"freeze_levels is {levels}, but the backbone has {len(self.channels)} levels"
            )
        if levels:
            self._freeze(levels)
        if affine:
            for module in self._norms():
                module.requires_grad_(False)

    def _norms(self) -> list[_BatchNorm]:
        found = (m for m in self.network.modules() if isinstance(m, _BatchNorm))
        return [module for module in found if module.affine]

    def _freeze(self, levels: int) -> None:
        mode = self.training
        self.eval()
        parameters = list(self.network.parameters())
        with torch.enable_grad():
            maps = self(self.mean.new_zeros(1, 3, PROBE, PROBE))[:levels]
            reached = torch.autograd.grad([m.sum() for m in maps], parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, reached, strict=True):
            if gradient is not None:
                parameter.requires_grad_(False)
        self.frozen_norms = [n for n in self._norms() if not n.weight.requires_grad]
        self.train(mode)

    def train(self, mode: bool = True) -> Backbone:
        """Set the mode, keeping the normalisation of frozen levels in eval mode."""
        super().train(mode)
        for module in self.frozen_norms:
            module.eval()
        return self


def timm_module() -> Any:
    """Import timm when a network is built: checking a configuration needs none, and it takes
    as long as torch itself."""
    import wsss.torchvision_shim  # noqa: F401  (timm imports torchvision)

    import timm  # isort: skip  (after the shim)

    # It warns of the classifier's keys, which features do not need; check_keys sees to the rest.
    logging.getLogger("timm.models._builder").setLevel(logging.ERROR)
    return timm


def build_backbone(
    config: BackboneConfig, output_stride: int, pretrained: bool, geometry: Geometry = "timm"
) -> Backbone:
    """Make a backbone of the given output stride.

        Args:
            config: name and source of the weights.
            output_stride: stride of the last level; later stages are dilated to keep it.
            pretrained: load the configured initial weights; False when trained weights follow (they
    hold the normalisation too).
            geometry: where strides and dilations sit, see :func:`set_geometry`.

        Raises:
            UserError: unknown name, an output stride the network cannot have, weights that do not
                fit or would have to be downloaded without permission.
    """
    source = config.weights if pretrained else "random"
    if config.name == wide_resnet38.NAME:
        return _wide_resnet38(source, output_stride, geometry)
    timm = timm_module()
    overlay: dict[str, Any] = {}
    mean = std = None
    if source.startswith(("package:", "file:")):
        full = _skeleton(config.name)
        weights = load_initial(source, _blocks_per_stage(full))
        shapes = {name: value.shape for name, value in full.state_dict().items()}
        check_keys(weights.state, shapes, _head(full), source)
        overlay = {"state_dict": weights.state}
        mean, std = weights.mean, weights.std
    elif source == "hub" and not config.allow_download:
        raise UserError(
            "backbone.weights is 'hub' but backbone.allow_download is false: "
            "allow the download or name package:NAME or file:PATH"
        )
    options = {"pretrained": source != "random", "pretrained_cfg_overlay": overlay or None}
    try:
        if is_transformer(config.name):
            network: nn.Module = create(timm, config.name, output_stride, **options)
        else:
            network = timm.create_model(
                config.name, features_only=True, output_stride=output_stride, **options
            )
    except (NotImplementedError, TypeError, AssertionError, KeyError) as error:
        raise UserError(
            f"backbone {config.name!r} cannot give features at output stride {output_stride}: "
            f"{str(error) or type(error).__name__}"
        ) from error
    except RuntimeError as error:
        if re.search("Unknown model|Invalid pretrained tag", str(error)):
            raise UserError(
                f"backbone.name {config.name!r} is not in timm ({error}): see timm.list_models()"
            ) from error
        raise
    set_geometry(network, geometry, config.name)
    info: Any = network.feature_info
    if info.reduction()[-1] != output_stride:
        raise UserError(
            f"backbone {config.name!r} has features at output stride {info.reduction()[-1]}, not "
            f"at {output_stride}: change output_stride"
        )
    replace_dropout(network)
    allow_single_values(network)
    default: Any = timm.get_pretrained_cfg(config.name)
    return Backbone(network, tuple(mean or default.mean), tuple(std or default.std))


def _wide_resnet38(source: str, output_stride: int, geometry: Geometry) -> Backbone:
    """Make the one network that timm does not have; arguments as in :func:`build_backbone`."""
    if source == "hub":
        raise UserError(
            f"backbone.weights is 'hub', but {wide_resnet38.NAME!r} is on none: name the converted "
            "ImageNet weights as file:PATH"
        )
    network = wide_resnet38.create(output_stride)
    set_geometry(network, geometry, wide_resnet38.NAME)
    if source != "random":
        state = wide_resnet38.without_head(load_initial(source, None).state)
        shapes = {name: value.shape for name, value in network.state_dict().items()}
        check_keys(state, shapes, wide_resnet38.HEADS[0], source)
        network.load_state_dict(state, strict=False)  # old files lack num_batches_tracked
    return Backbone(network, wide_resnet38.MEAN, wide_resnet38.STD)


def _skeleton(name: str) -> nn.Module:
    """The whole classification network without memory, to check names and shapes against."""
    try:
        with torch.device("meta"):
            network: nn.Module = timm_module().create_model(name)
    except RuntimeError as error:
        raise UserError(f"backbone.name {name!r} is not in timm: see timm.list_models()") from error
    return network


def _blocks_per_stage(network: nn.Module) -> list[int] | None:
    blocks: Any = getattr(network, "blocks", None)
    if isinstance(blocks, nn.Sequential) and all(isinstance(s, nn.Sequential) for s in blocks):
        stages: Any = blocks
        return [len(stage) for stage in stages]
    return None


def _head(network: nn.Module) -> str:
    config: Any = network.pretrained_cfg
    return f"{config.get('classifier', 'classifier')}."
