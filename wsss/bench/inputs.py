"""What a stage reads of the stages before it: random weights and made-up stores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wsss.artifacts import save_weights
from wsss.bench.subject import Subject, write_maps, write_masks
from wsss.config import Config
from wsss.planning.disk import AFFINITY_STRIDE, IRNET_STRIDE
from wsss.stages.evaluations import EVALUATIONS

if TYPE_CHECKING:
    from torch import Tensor, nn

# Which trained networks a stage reads; which of the two a prediction does is up to the road.
NETWORKS = {"cam": "classify", "edges": "irnet"}


def network_of(stage: str, config: Config) -> str | None:
    """The stage whose weights ``stage`` reads, if any."""
    if stage == "predict":
        return "classify" if config.road == "single-stage" else "segment"
    if stage == "walk" and config.refine.method == "affinitynet":
        return "affinity"
    return NETWORKS.get(stage)


def write_network(stage: str, config: Config, classes: int, path: Path) -> None:
    """Write the weights of a network of ``stage`` as it starts, without its initial weights."""
    save_weights(path, build_network(stage, config, classes).state_dict(), {})


def build_network(stage: str, config: Config, classes: int) -> nn.Module:
    """The network of a stage that trains one, as it starts."""
    from wsss.networks.affinity import build_affinity
    from wsss.networks.irnet import build_irnet
    from wsss.networks.method import build_method
    from wsss.networks.segmenter import build_segmenter
    from wsss.tasks.affinity import AffinityTask
    from wsss.tasks.irnet import IrNetTask
    from wsss.tasks.segmentation import SegmentationTask

    if stage == "classify":
        return build_method(config, classes, False)
    if stage == "affinity":
        return AffinityTask(build_affinity(config, False), config.affinity.radius)
    if stage == "irnet":
        return IrNetTask(build_irnet(config, False), config.irnet.radius)
    return SegmentationTask(build_segmenter(config, classes + 1, False), msc=config.segment.msc)


def stores_of(stage: str, what: str, config: Config) -> list[tuple[str, str]]:
    """Folders and names of the stores that a stage reads."""
    if what:
        return [(EVALUATIONS[what].stage, EVALUATIONS[what].store)]
    refined = config.refine.method != "none"
    return {
        "affinity": [("seeds", "low"), ("seeds", "high")],
        "irnet": [("seeds", "confident")],
        "seeds_alpha": [("cam", "maps")],
        "seeds_label": [("cam", "maps")],
        "seeds_confident": [("cam", "maps")],
        "walk": [
            ("cam", "maps"),
            *([("irnet", "edges")] if config.refine.method == "irnet" else []),
        ],
        "pseudo": [("walk", "scores")] if refined else [("seeds", "crf")],
        "soft": [("walk", "scores")] if refined else [("cam", "maps")],
        "segment": [("pseudo", "masks"), ("pseudo", "scores")],
        "crf": [("predict", "scores")],
    }.get(stage, [])


def write_store(name: tuple[str, str], path: Path, config: Config, to: Subject, count: int) -> None:
    """Write one store of ``count`` images."""
    alpha = config.walk.background == "alpha"
    edges = config.refine.method == "irnet"
    if name == ("cam", "maps"):
        write_maps(path, to, count, config.cam.stride, False)
    elif name == ("irnet", "edges"):
        write_maps(path, to._replace(tags=1), count, IRNET_STRIDE, False)
    elif name == ("walk", "scores"):
        write_maps(path, to, count, IRNET_STRIDE if edges else AFFINITY_STRIDE, alpha)
    elif name == ("pseudo", "scores"):
        write_maps(path, to, count, config.segment.label_stride, True)
    elif name == ("predict", "scores"):
        write_maps(path, to, count, config.predict.stride, True, every=True)
    else:
        write_masks(path, to, count)


def random_state(backbone: str) -> dict[str, Tensor]:
    """The weights of a whole classification network as it starts."""
    from wsss.models import wide_resnet38
    from wsss.models.backbones import timm_module

    if backbone == wide_resnet38.NAME:
        return dict(wide_resnet38.create(wide_resnet38.STRIDE).state_dict())
    return dict(timm_module().create_model(backbone).state_dict())
