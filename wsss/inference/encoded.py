"""Encoded photos to encoded masks, in memory: what a model server does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wsss.artifacts import Entry, encode_mask
from wsss.data.images import decode_image
from wsss.engine.device import pick_device, place
from wsss.engine.memory import give_back_freed_memory
from wsss.inference.limits import LONGEST_SIDE
from wsss.inference.masks import MaskJob, make_mask
from wsss.inference.photos import bounded
from wsss.inference.prediction import predict_window
from wsss.inference.predictor import load_predictor
from wsss.inference.settings import inference, trained
from wsss.inference.tags import parse_tags
from wsss.refine.crf_config import optional_crf
from wsss.shards import WINDOW


class _Photo(NamedTuple):
    image: np.ndarray
    size: tuple[int, int]
    tags: frozenset[int] | None


class EncodedPredictor:
    """A trained network, built once, that predicts as ``wsss predict --weights`` does.

    Args:
        weights: a file that names its scales and CRF in its own metadata, see
            :mod:`wsss.inference.settings`.

    Raises:
        UserError: no such weights, or they do not fit the network they describe.
    """

    def __init__(self, weights: Path) -> None:
        network = trained(weights)
        self.classes = network.classes
        self.settings = inference(weights, network.meta)
        self.compute = network.config.compute
        self.predictor = load_predictor(network.config, len(self.classes), weights)
        self.device = pick_device(self.compute)
        place(self.predictor.module, self.compute, self.device)
        crf = self.settings.crf
        self.crf = optional_crf(crf, len(self.classes) + 1) if crf is not None else None

    def masks(self, photos: Iterable[Any], tags: Iterable[Any] | None) -> list[bytes]:
        """Return a palette PNG a photo, in its full size, ids 0..C.

        Args:
            photos: encoded files (JPEG, PNG, ...) as bytes.
            tags: a photo's classes as ``cat,dog``; all others are ruled out. None or an empty
                cell rules out nothing.

        Raises:
            UserError: a photo that cannot be decoded, or an unknown tag; it names the row.
        """
        rows = [bytes(photo) for photo in photos]
        cells = [None] * len(rows) if tags is None else list(tags)
        pairs = enumerate(zip(rows, cells, strict=True))
        read = [self._read(number, *pair) for number, pair in pairs]
        masks: list[bytes] = []
        for start in range(0, len(read), WINDOW):
            masks += self._predict(read[start : start + WINDOW])
            give_back_freed_memory()
        return masks

    def _read(self, number: int, data: bytes, cell: Any) -> _Photo:
        image = decode_image(data, f"row {number}")
        tags = parse_tags(cell, self.classes) if isinstance(cell, str) and cell.strip() else None
        return _Photo(bounded(image, LONGEST_SIDE), (image.shape[0], image.shape[1]), tags)

    def _predict(self, photos: list[_Photo]) -> Iterator[bytes]:
        found = predict_window(
            *(self.predictor, [photo.image for photo in photos], self.settings.predict),
            *(self.compute, self.device),
        )
        for photo, one in zip(photos, found, strict=True):
            entry = Entry(one.scores.astype(np.float16), one.classes, one.size)
            job = MaskJob(photo.image, entry, photo.tags, photo.size)
            yield encode_mask(make_mask(job, self.crf).full)
