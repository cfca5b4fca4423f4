"""How a file of trained weights predicts: its network, and scales and CRF to use it with.

The network stands in the weights' own metadata. Scales and CRF do not, since an edit of them
must not make a training stale; they come from, in this order,

1. configuration files that the caller names;
2. the section ``inference`` of the metadata, which ``wsss export --format weights`` writes;
3. the configuration that the workflow left in the results folder that holds the weights;
4. nowhere: one pass at scale 1 without CRF.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from wsss.artifacts import weights_meta
from wsss.config import Config
from wsss.config.resolve import VARIANTS, lay_over, overlay, read_yaml, validate_section
from wsss.config.schema import Backbone, Classify, Compute, Method, Predict, PredictionCrf, Segment
from wsss.errors import UserError
from wsss.inference.implied import completed

# What the stage that trained a predicting network wrote of its configuration.
_SECTIONS: dict[str, dict[str, Any]] = {
    "segment": {"backbone": Backbone, "segment": Segment, "compute": Compute},
    "classify": {
        "backbone": Backbone,
        "method": Method,
        "classify": Classify,
        "compute": Compute,
    },
}


class Trained(NamedTuple):
    """A network as its weights describe it: ``config`` holds the sections that build it."""

    config: Config
    classes: tuple[str, ...]
    meta: dict[str, Any]


class Inference(NamedTuple):
    """How to predict: ``crf`` is None for none; ``origin`` says where it stands written."""

    predict: Predict
    crf: PredictionCrf | None
    origin: str


PLAIN = "plain"


def trained(weights: Path) -> Trained:
    """Read the network's description from the metadata of ``weights``.

    Raises UserError: no such file, not written by a training stage, a network that predicts no
    masks, or written for another version of the configuration. Keys that are younger than the
    weights have the value of :mod:`wsss.inference.implied`.
    """
    meta = weights_meta(weights)
    stage, params, classes = (meta.get(key) for key in ("stage", "params", "classes"))
    if not isinstance(params, dict) or not isinstance(classes, list) or not classes:
        raise UserError(
            f"{weights} does not say which network it holds: give weights.safetensors as "
            "`wsss segment` writes it"
        )
    if stage not in _SECTIONS:
        raise UserError(
            f"{weights} holds the network of stage {stage!r}, which predicts no masks: give "
            "segment/weights.safetensors"
        )
    if stage == "classify":
        _refuse_mute(params, weights)
    sections = {
        name: validate_section(
            model, name, completed(name, params.get(name)), f"{weights} (metadata)"
        )
        for name, model in _SECTIONS[stage].items()
    }
    road = "single-stage" if stage == "classify" else params.get("road", "two-stage")
    return Trained(Config.model_construct(road=road, **sections), tuple(classes), meta)


def _refuse_mute(params: Mapping[str, Any], weights: Path) -> None:
    """Refuse a classification network whose method predicts no masks."""
    from wsss.methods import load_method

    name = (params.get("method") or {}).get("name", "")
    if "single-stage" not in load_method(name).info.roads:
        raise UserError(
            f"{weights} is the classification network of {name!r}, which predicts no masks by "
            "itself: give segment/weights.safetensors"
        )


def inference(
    weights: Path,
    meta: Mapping[str, Any],
    params: Sequence[Path] = (),
    variant: str | None = None,
) -> Inference:
    """Find the scales and the CRF to predict with; the order is that of the module's docstring.

    ``variant`` names an overlay of ``params``; the base where it is None.
    """
    if params:
        raw: dict[str, Any] = {}
        for path in params:
            raw = overlay(raw, read_yaml(path))
        return _from_raw(raw, variant, " + ".join(map(str, params)), recorded=False)
    if variant is not None:
        raise UserError("--variant names an overlay of --params: give both, or --weights alone")
    if isinstance(meta.get("inference"), Mapping):
        return _from_raw(meta["inference"], None, f"{weights} (metadata)")
    left = _left_by_workflow(weights)
    if left is not None:
        return left
    plain = Predict(scales=[1.0], flip=False, combine="mean", batch=1, stride=1)
    return Inference(plain, None, PLAIN)


def _left_by_workflow(weights: Path) -> Inference | None:
    """The settings of RESULTS/DATASET/VARIANT/seedN/STAGE/weights.safetensors, if there."""
    # As it was named, so that no absolute path is recorded; then where links lead.
    for parents in (weights.parents, weights.resolve().parents):
        if len(parents) < 4:
            continue
        path, variant = parents[3] / "params.yaml", parents[2].name
        raw = read_yaml(path) if path.is_file() else {}
        # Weights that were copied to another depth find some other file: use it only if it fits.
        if variant in (raw.get(VARIANTS) or {}):
            return _from_raw(raw, variant, str(path))
    return None


def _from_raw(
    raw: Mapping[str, Any], variant: str | None, origin: str, recorded: bool = True
) -> Inference:
    """Validate the two sections alone: the rest may speak of data that is not here.

    What was ``recorded`` may be older than some keys; what a user hands over states all of them.
    """
    if variant is not None:
        variants = raw.get(VARIANTS) or {}
        if variant not in variants:
            raise UserError(
                f"{origin}: unknown variant {variant!r}: defined are {', '.join(sorted(variants))}"
            )
        raw = overlay(raw, lay_over(variants, variant, origin))
    sections = {name: raw.get(name) for name in ("predict", "crf")}
    if recorded:
        sections = {name: completed(name, section) for name, section in sections.items()}
    predict = validate_section(Predict, "predict", sections["predict"], origin)
    crf = validate_section(PredictionCrf, "crf", sections["crf"], origin)
    return Inference(predict, crf, origin)
