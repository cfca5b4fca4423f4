"""The dense CRF as the configuration describes it."""

from __future__ import annotations

from wsss.config.schema import Crf, PredictionCrf
from wsss.refine.crf import CrfParams, DoubtfulCrf, LabelCrf, ScoreCrf


def crf_params(config: Crf) -> CrfParams:
    """Return the constants in the form the CRF takes."""
    return CrfParams(**config.model_dump(include=set(CrfParams._fields)))


def optional_crf(config: PredictionCrf, labels: int) -> ScoreCrf | None:
    """Return the CRF of predictions, or None where 0 iterations switch it off.

    ``labels`` is the number of classes, background included.
    """
    if not config.iterations:
        return None
    params = crf_params(config)
    if config.confidence is not None:
        return LabelCrf(params, config.confidence, labels)
    return params if config.certainty == 1 else DoubtfulCrf(params, config.certainty, labels)
