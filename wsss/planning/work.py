"""How much each stage has to do, as numbers that anybody can check: one function a stage.

Inference is counted in megapixels that pass through a network or a CRF: images x their mean
pixels x passes. Training is counted in steps. Which images a stage works on is said in
:class:`wsss.planning.dataset.DataFacts`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from wsss.config import Config
from wsss.config.schema import Training
from wsss.pipeline import TRAINED
from wsss.planning.dataset import DataFacts, Group
from wsss.stages.evaluations import EVALUATIONS, stage_of

MEGA = 1e6


class Work(NamedTuple):
    """``amount`` of ``unit`` of a measured ``task``; ``text`` says where the amount comes from."""

    task: str
    unit: str
    amount: float
    text: str


def work_of(stage: str, config: Config, facts: DataFacts, what: str = "") -> list[Work]:
    """Return what one run of a stage does, over all of its shards.

    Args:
        stage: a key of :data:`wsss.config.slices.STAGES`.
        config: the variant's.
        facts: of the data set.
        what: which evaluation, for stages that evaluate.

    Returns:
        Nothing for stages that only read and copy (``manifest``, ``compare``, ``report``).
    """
    if what:
        return _evaluation(what, config, facts)
    return _STAGES[stage](config, facts) if stage in _STAGES else []


def _pixels(task: str, group: Group, passes: float, doing: str) -> Work:
    amount = group.images * group.pixels / MEGA * passes
    said = f"{group.images} images x {group.pixels / MEGA:.3f} Mpx"
    return Work(task, "Mpx", amount, f"{said} x {passes:g} {doing}" if doing else said)


def scale_passes(scales: list[float], flip: bool) -> float:
    """Passes of one image through a network in units of its own size: areas of all scales."""
    return sum(scale * scale for scale in scales) * (2 if flip else 1)


def _said(scales: list[float], flip: bool) -> str:
    number = "1 scale" if len(scales) == 1 else f"{len(scales)} scales"
    return f"({number}, flipped)" if flip else f"({number})"


def steps_an_epoch(training: Training, images: int) -> int:
    """Batches of an epoch; a last, smaller one is dropped."""
    return max(1, images // training.batch)


def _training(task: str, training: Training, facts: DataFacts) -> Work:
    steps = steps_an_epoch(training, facts.groups["labelled"].images)
    said = f"{training.epochs} epochs x {steps} steps of {training.batch} x {training.crop} px"
    return Work(task, "step", training.epochs * steps, said)


def _classify(config: Config, facts: DataFacts) -> list[Work]:
    if config.classify.checkpoint is not None:
        return []
    return [_training("classify", config.classify, facts)]


def _cam(config: Config, facts: DataFacts) -> list[Work]:
    scales, flip = config.cam.scales, config.cam.flip
    passes, said = scale_passes(scales, flip), _said(scales, flip)
    return [_pixels("cam", facts.groups["walked"], passes, said)]


def _seeds_alpha(config: Config, facts: DataFacts) -> list[Work]:  # noqa: ARG001
    return [_pixels("seeds_alpha", facts.groups["seeded"], 2, "CRFs")]


def _seeds_label(config: Config, facts: DataFacts) -> list[Work]:  # noqa: ARG001
    return [_pixels("seeds_label", facts.groups["seeded"], 1, "CRF")]


def _seeds_confident(config: Config, facts: DataFacts) -> list[Work]:  # noqa: ARG001
    return [_pixels("seeds_confident", facts.groups["seeded"], 2, "CRFs")]


def _affinity(config: Config, facts: DataFacts) -> list[Work]:
    return [_training("affinity", config.affinity, facts)]


def _irnet(config: Config, facts: DataFacts) -> list[Work]:
    """Training, and one pass over the training images for the mean displacement."""
    displacement = _pixels("edges", facts.groups["labelled"], 1, "pass for the mean displacement")
    return [_training("irnet", config.irnet, facts), displacement]


def _edges(config: Config, facts: DataFacts) -> list[Work]:  # noqa: ARG001
    return [_pixels("edges", facts.groups["walked"], 2, "passes")]


def _walk(config: Config, facts: DataFacts) -> list[Work]:
    return [_pixels("walk", facts.groups["walked"], 1, f"walk of {config.walk.steps} steps")]


def _pseudo(config: Config, facts: DataFacts) -> list[Work]:
    """Without refinement the CRF seeds are copied."""
    if config.refine.method == "none":
        return []
    return [_pixels("pseudo", facts.groups["seeded"], 1, "CRF" if config.pseudo.crf else "argmax")]


def _soft(config: Config, facts: DataFacts) -> list[Work]:  # noqa: ARG001
    return [_pixels("soft", facts.groups["seeded"], 1, "")]


def _segment(config: Config, facts: DataFacts) -> list[Work]:
    if config.segment.checkpoint is not None:
        return []
    return [_training("segment", config.segment, facts)]


def _predict(config: Config, facts: DataFacts) -> list[Work]:
    """What a network does with an image beside it (``segment.msc``) is in the measured time."""
    scales, flip = config.predict.scales, config.predict.flip
    passes, said = scale_passes(scales, flip), _said(scales, flip)
    return [_pixels("predict", facts.groups["predicted"], passes, said)]


def _crf(config: Config, facts: DataFacts) -> list[Work]:
    doing = "CRF" if config.crf.iterations else "argmax"
    return [_pixels("crf", facts.groups["predicted"], 1, doing)]


def _evaluation(what: str, config: Config, facts: DataFacts) -> list[Work]:
    task, role = evaluation_task(what, config), EVALUATIONS[what].role
    if what == "boxes":
        seed, tune = facts.groups["seed"], facts.groups["tune"]
        both = seed._replace(images=seed.images + tune.images)
        return [_pixels(task, both, 1, "")]
    return [_pixels(task, facts.groups[role], 1, "")]


def evaluation_task(what: str, config: Config) -> str:
    """What is measured of an evaluation: the stage, and the kind of store it reads."""
    kind: str = EVALUATIONS[what].kind
    if kind == "walk":
        kind = "cams" if config.walk.background == "threshold" else "scores"
    return f"{stage_of(what)} {kind}"


def batch_of(stage: str, config: Config) -> int:
    """Images of one size that an inference stage puts through its network together."""
    if stage == "cam":
        return config.cam.batch
    if stage == "predict":
        return config.predict.batch
    batched = stage == "edges" or (stage == "walk" and config.refine.method == "affinitynet")
    return config.walk.batch if batched else 1


def group_of(stage: str) -> str:
    """Which images a sharded stage works on."""
    return _GROUPS.get(stage, "seeded")


_GROUPS = {"crf": "predicted", "predict": "predicted"} | dict.fromkeys(
    ("cam", "edges", "walk"), "walked"
)
_STAGES: dict[str, Callable[[Config, DataFacts], list[Work]]] = {
    "classify": _classify,
    "cam": _cam,
    "seeds_alpha": _seeds_alpha,
    "seeds_label": _seeds_label,
    "seeds_confident": _seeds_confident,
    "affinity": _affinity,
    "irnet": _irnet,
    "edges": _edges,
    "walk": _walk,
    "pseudo": _pseudo,
    "soft": _soft,
    "segment": _segment,
    "predict": _predict,
    "crf": _crf,
}
# Stages that run on a GPU where there is one; stages that share their images among processes.
ON_GPU = (*TRAINED, "cam", "edges", "walk", "predict")
POOLED = ("seeds_alpha", "seeds_label", "seeds_confident", "pseudo", "soft", "crf", "evaluate")


def is_pooled(task: str) -> bool:
    """Whether a task's images are shared among ``resources.processes``."""
    return task.startswith(POOLED)
