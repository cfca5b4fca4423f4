"""What each stage reads: the keys that Snakemake and DVC watch, and the only ones it gets.

A stage receives :func:`view`, which holds its own keys and nothing else, so a stage that reads
an undeclared key fails instead of going stale.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from wsss.config.schema import Classify, Config, Segment

# Says of a score whether its networks were trained here.
_ORIGIN = ("road", "classify.checkpoint", "segment.checkpoint")
# Keys whose change makes a stage's result stale.
STAGES: dict[str, tuple[str, ...]] = {
    "manifest": ("data",),
    "classify": ("method", "backbone", "classify", "compute", "distributed"),
    "cam": (
        "method",
        "backbone",
        "classify.output_stride",
        "classify.geometry",
        "classify.dropout",
        "cam.scales",
        "cam.flip",
        "cam.flip_combine",
        "cam.resize",
        "cam.batch",
        "cam.stride",
        "cam.maps",
        "compute",
    ),
    "seeds_alpha": ("seeds.alpha_low", "seeds.alpha_high", "seeds.alpha_crf"),
    "seeds_label": ("cam.threshold", "seeds.label_confidence", "seeds.label_crf"),
    "seeds_confident": (
        "seeds.confident_fg",
        "seeds.confident_bg",
        "seeds.label_confidence",
        "seeds.label_crf",
    ),
    "affinity": ("backbone", "affinity", "compute", "distributed"),
    "irnet": ("backbone", "irnet", "compute", "distributed"),
    "edges": (
        "backbone",
        "irnet.output_stride",
        "irnet.geometry",
        "irnet.radius",
        "walk.batch",
        "compute",
    ),
    "walk": (
        "refine",
        "backbone",
        "affinity.output_stride",
        "affinity.geometry",
        "affinity.radius",
        "affinity.widths",
        "walk.batch",
        "walk.background",
        "walk.background_alpha",
        "walk.power",
        "walk.suppress_edges",
        "walk.beta",
        "walk.steps",
        "walk.radius",
        "compute",
    ),
    "pseudo": ("refine", "walk.background", "walk.background_threshold", "pseudo"),
    "soft": (
        "refine",
        "walk.background",
        "walk.background_threshold",
        "pseudo.crf",
        "pseudo.crf_params",
        "segment.label_stride",
        "cam.threshold",
        "seeds.label_confidence",
        "seeds.label_crf",
    ),
    "segment": ("road", "backbone", "segment", "compute", "distributed"),
    "predict": (
        "road",
        "method",
        "backbone",
        "classify.output_stride",
        "classify.geometry",
        "classify.dropout",
        "segment.output_stride",
        "segment.geometry",
        "segment.net",
        "segment.width",
        "segment.low_width",
        "segment.dilation",
        "segment.rates",
        "segment.separable",
        "segment.bifpn",
        "segment.norm",
        "segment.msc",
        "segment.dropout",
        "predict",
        "compute",
    ),
    "crf": ("crf",),
    "evaluate_cam": (
        "cam.threshold",
        "evaluate.bins",
        "evaluate.boundary_tolerance",
        *_ORIGIN,
    ),
    "evaluate_walk": (
        "walk.background",
        "walk.background_threshold",
        "evaluate.bins",
        "evaluate.boundary_tolerance",
        *_ORIGIN,
    ),
    "evaluate_tune": ("walk.background", "evaluate.bins", *_ORIGIN),
    "evaluate_boxes": ("evaluate.bins", "evaluate.box_min_area", *_ORIGIN),
    "evaluate": ("evaluate.boundary_tolerance", *_ORIGIN),
    "compare": ("run.variants", "run.seeds"),
    "report": ("report", "run.variants", "run.seeds"),
}
# The module in wsss/stages that runs each stage.
MODULES: dict[str, str] = {
    "seeds_alpha": "seeds",
    "seeds_label": "seeds",
    "seeds_confident": "seeds",
    "evaluate_cam": "evaluate",
    "evaluate_walk": "evaluate",
    "evaluate_tune": "evaluate",
    "evaluate_boxes": "boxes",
    "evaluate": "evaluate",
    **{stage: stage for stage in STAGES if not stage.startswith(("seeds", "evaluate"))},
}
# Keys any stage may read because they never change a result: where things are, how many
# processes share the work, who is told.
SHARED = ("run", "resources", "tracking", "data")


def layout_of(config: Config, stage: str) -> str | None:
    """Return the layout of the checkpoint that stands in for a stage's training, if any."""
    trained: dict[str, Classify | Segment] = {
        "classify": config.classify,
        "segment": config.segment,
    }
    checkpoint = trained[stage].checkpoint if stage in trained else None
    return checkpoint.layout if checkpoint is not None else None


def _partial(model: BaseModel, paths: set[str]) -> BaseModel:
    heads: dict[str, set[str]] = {}
    for path in paths:
        head, _, rest = path.partition(".")
        heads.setdefault(head, set()).add(rest)
    values: dict[str, Any] = {}
    for head, rests in heads.items():
        value = getattr(model, head)
        values[head] = value if "" in rests else _partial(value, rests)
    return type(model).model_construct(**values)


def view(config: Config, stage: str) -> Config:
    """Return ``config`` with the keys of ``stage`` alone; any other raises AttributeError."""
    partial = _partial(config, {*STAGES[stage], *SHARED})
    assert isinstance(partial, Config)
    return partial


def stage_params(config: Config, stage: str) -> dict[str, Any]:
    """Return the values ``stage`` depends on, as plain nested data for a workflow tool."""
    if not STAGES[stage]:
        return {}
    params: dict[str, Any] = _partial(config, set(STAGES[stage])).model_dump(warnings=False)
    return params
