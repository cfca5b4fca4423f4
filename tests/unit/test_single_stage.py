"""A method that predicts by itself: its masks, its seeds, its localisation."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from wsss.artifacts import ArrayStore, MaskStore
from wsss.cli import main
from wsss.config import Params
from wsss.config.resolve import overlay
from wsss.context import make_context
from wsss.errors import UserError
from wsss.export.weights import export_weights
from wsss.inference.encoded import EncodedPredictor
from wsss.inference.prediction import predict_window
from wsss.inference.predictor import load_predictor
from wsss.methods import check_method
from wsss.methods.rtc import Rtc
from wsss.networks.method import build_method
from wsss.stages import boxes, cam, crf, manifest, predict
from wsss.stages.evaluations import wanted
from wsss.stages.training import save_trained

HIGHEST = {"combine": "max_logits"}


@pytest.fixture
def params(tiny_raw: dict[str, Any]) -> Params:
    """Variant ``rtc`` with louder heads, and no training."""
    top = {"predict": {"scales": [0.5, 1.0]}, "evaluate": {"boxes": True}}
    params = Params(overlay(tiny_raw, top))
    manifest.run(make_context(params, "manifest", "", 0))
    context = make_context(params, "classify", "rtc", 0)
    method = build_method(context.config, context.manifest.num_classes, True, 0)
    assert isinstance(method, Rtc)
    generator = torch.manual_seed(0)
    with torch.no_grad():
        for layer in (method.classifier, method.decoder.classifier):
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
    save_trained(context.paths.weights("classify"), method, context)
    return params


def test_photos_get_the_masks_of_the_workflow(params: Params, tmp_path: Path) -> None:
    context = make_context(params, "predict", "rtc", 0)
    paths = context.paths
    predict.run(context, paths.store("predict", "scores"), paths.store("predict", "single"))
    scores = ArrayStore(paths.store("predict", "scores"))
    photos = tmp_path / "photos"
    photos.mkdir()
    for item in context.manifest.role("val"):
        entry = scores.get(item.id)
        # The background's score is the same everywhere, and what is stored is no softmax.
        assert entry.classes[0] == 0
        np.testing.assert_allclose(entry.array[0], 0.17, atol=1e-3)
        assert not np.allclose(entry.array.sum(0), 1, atol=0.05)
        Image.fromarray(context.manifest.read_image(item)).save(photos / f"{item.id}.png")
    masks = paths.store("predict", "masks")
    crf.run(make_context(params, "crf", "rtc", 0), masks)
    (paths.results / paths.dataset / "params.yaml").write_text(yaml.safe_dump(params.raw))
    out = tmp_path / "out"
    weights = paths.weights("classify")
    arguments = ("--weights", weights, "--images", photos, "--out", out)
    assert main(["predict", *map(str, arguments)]) == 0
    store = MaskStore(masks)
    assert any(store.get(name).any() for name in store.ids)
    for name in store.ids:
        mask = np.array(Image.open(out / "masks" / f"{name}.png"))
        np.testing.assert_array_equal(mask, store.get(name))
    assert json.loads((out / "predict.json").read_text())["crf"]["confidence"] == 0.7
    # And what a server of the exported weights answers.
    served = EncodedPredictor(export_weights(weights, tmp_path / "served", [], None))
    names = sorted(photo.stem for photo in photos.iterdir())
    answers = served.masks([(photos / f"{name}.png").read_bytes() for name in names], None)
    for name, answer in zip(names, answers, strict=True):
        np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(answer))), store.get(name))


def test_its_seeds_and_boxes(params: Params) -> None:
    config = params.resolve("rtc")
    assert {"cam", "boxes", "final"} <= set(wanted(config))
    assert "pseudo" not in wanted(config)
    stores = {}
    for kind in ("refined", "cam", "decoder", None):
        top = overlay(params.raw, {"variants": {"rtc": {"cam": {"maps": kind}}}})
        context = make_context(Params(top), "cam", "rtc", 0)
        out = context.paths.store("cam", "maps")
        cam.run(context, out)
        stores[kind] = out.read_bytes()
    assert stores[None] == stores["refined"]
    assert len(set(stores.values())) == 3
    boxes.run(make_context(params, "evaluate_boxes", "rtc", 0))
    found = make_context(params, "evaluate_boxes", "rtc", 0).paths.metrics("boxes")
    assert 0 <= json.loads(found.with_suffix(".json").read_text())["maxboxacc_v2"] <= 1


def test_the_two_stage_road_shares_the_training(params: Params) -> None:
    assert params.owners("rtc-two-stage")["classify"] == "rtc"
    two = params.resolve("rtc-two-stage")
    assert two.cam.maps == "decoder"
    assert two.crf == params.base.crf
    assert "pseudo" in wanted(two)


def test_the_highest_logits_make_masks_where_there_are_logits(tiny_raw: dict[str, Any]) -> None:
    params = Params(overlay(tiny_raw, {"variants": {"mcc": {"predict": HIGHEST}}}))
    manifest.run(make_context(params, "manifest", "", 0))
    context = make_context(params, "classify", "mcc", 0)
    method = build_method(context.config, context.manifest.num_classes, True, 0)
    weights = context.paths.weights("classify")
    save_trained(weights, method, context)
    context = make_context(params, "predict", "mcc", 0)
    predictor = load_predictor(context.config, context.manifest.num_classes, weights)
    image = context.manifest.read_image(context.manifest.role("val")[0])
    asked = (context.config.compute, torch.device("cpu"))
    found = {}
    for combine in ("max_logits", "mean"):
        config = context.config.predict.model_copy(update={"combine": combine})
        (found[combine],) = predict_window(predictor, [image], config, *asked)
        assert np.allclose(found[combine].scores.sum(0), 1, atol=0.05)
    highest, mean = found.values()
    assert highest.scores.shape != mean.scores.shape or not np.allclose(highest.scores, mean.scores)
    rtc = {"variants": {"rtc": {"predict": HIGHEST}}}
    with pytest.raises(UserError, match="scores of method 'rtc' are no softmax of logits"):
        check_method(Params(overlay(tiny_raw, rtc)).resolve("rtc"), "here")


def test_maps_that_a_method_lacks_are_refused(tiny_raw: dict[str, Any]) -> None:
    config = Params(overlay(tiny_raw, {"cam": {"maps": "refined"}})).resolve("baseline")
    with pytest.raises(UserError, match=r"cam\.maps is 'refined': method 'baseline' has null"):
        check_method(config, "here")
