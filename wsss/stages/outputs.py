"""Which files each stage of a variant leaves."""

from __future__ import annotations

# Folder below the run, and what the stage has made there when it is done; the first one's name is
# that of the record of its job, too.
FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "classify": ("classify", ("weights.safetensors", "curve.csv")),
    "cam": ("cam", ("maps.zip",)),
    "seeds_alpha": ("seeds", ("low.zip", "high.zip")),
    "seeds_confident": ("seeds", ("confident.zip",)),
    "seeds_label": ("seeds", ("crf.zip",)),
    "affinity": ("affinity", ("weights.safetensors", "curve.csv")),
    "irnet": ("irnet", ("weights.safetensors", "curve.csv")),
    "edges": ("irnet", ("edges.zip",)),
    "walk": ("walk", ("scores.zip",)),
    "pseudo": ("pseudo", ("masks.zip",)),
    "soft": ("pseudo", ("scores.zip",)),
    "segment": ("segment", ("weights.safetensors", "curve.csv")),
    "predict": ("predict", ("scores.zip", "single.zip")),
    "crf": ("predict", ("masks.zip",)),
}
