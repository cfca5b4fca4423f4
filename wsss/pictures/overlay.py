"""Masks and heat maps laid over an image."""

from __future__ import annotations

import numpy as np

from wsss.artifacts import voc_palette
from wsss.labels import IGNORE

# VOC draws what is to be ignored in this colour; index 255 of its formula is another.
IGNORE_COLOUR = (224, 224, 192)
_PALETTE = np.array(voc_palette(), np.uint8).reshape(256, 3)
# Anchors of a heat scale from cold to hot, evenly spaced: blue, cyan, yellow, red.
_HEAT = np.array([[0, 0, 128], [0, 128, 255], [96, 255, 160], [255, 224, 0], [192, 0, 0]], float)


def class_colour(class_id: int) -> tuple[int, int, int]:
    """RGB of a mask id, as in palette PNGs; 255 is drawn in VOC's cream."""
    if class_id == IGNORE:
        return IGNORE_COLOUR
    red, green, blue = (int(value) for value in _PALETTE[class_id])
    return red, green, blue


def colour_mask(mask: np.ndarray) -> np.ndarray:
    """(H, W) uint8 ids -> (H, W, 3) uint8 colours."""
    table = _PALETTE.copy()
    table[IGNORE] = IGNORE_COLOUR
    colours: np.ndarray = table[mask]
    return colours


def overlay_mask(image: np.ndarray, mask: np.ndarray, opacity: float = 0.55) -> np.ndarray:
    """Tint an (H, W, 3) uint8 image by an (H, W) mask; background stays, borders are drawn full."""
    tinted = image.astype(np.float32)
    shown = mask != 0
    colours = colour_mask(mask)
    tinted[shown] += (colours[shown] - tinted[shown]) * opacity
    result = np.round(tinted).astype(np.uint8)
    edge = _borders(mask)
    result[edge] = np.where(shown[edge][:, None], colours[edge], 255)
    return result


def _borders(mask: np.ndarray) -> np.ndarray:
    """Pixels whose right or lower neighbour has another id."""
    edge = np.zeros(mask.shape, bool)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1] |= mask[:-1] != mask[1:]
    return edge


def heat_colours(values: np.ndarray) -> np.ndarray:
    """(H, W) in [0, 1] -> (H, W, 3) uint8, blue to red."""
    position = np.clip(np.nan_to_num(values.astype(np.float64)), 0, 1) * (len(_HEAT) - 1)
    low = np.minimum(position.astype(np.intp), len(_HEAT) - 2)
    fraction = (position - low)[..., None]
    mixed = _HEAT[low] * (1 - fraction) + _HEAT[low + 1] * fraction
    colours: np.ndarray = np.round(mixed).astype(np.uint8)
    return colours


def overlay_heat(image: np.ndarray, values: np.ndarray, opacity: float = 0.55) -> np.ndarray:
    """Lay an (H, W) map in [0, 1] over an (H, W, 3) uint8 image."""
    grey = image.astype(np.float32).mean(2, keepdims=True)
    mixed = grey * (1 - opacity) + heat_colours(values) * opacity
    result: np.ndarray = np.round(mixed).astype(np.uint8)
    return result


def grey_map(values: np.ndarray) -> np.ndarray:
    """(H, W) in [0, 1] -> (H, W, 3) uint8, white is 1."""
    levels = np.round(np.clip(np.nan_to_num(values.astype(np.float32)), 0, 1) * 255)
    return np.repeat(levels.astype(np.uint8)[:, :, None], 3, axis=2)
