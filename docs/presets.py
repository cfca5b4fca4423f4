"""Write docs/presets.md from the presets themselves.

python docs/presets.py
"""

from __future__ import annotations

from pathlib import Path

from wsss.config.about import About
from wsss.config.presets import Preset, headline, read_presets

DOCS = Path(__file__).parent
FOLDER = DOCS.parent / "workflow" / "presets"
INTRODUCTION = """\
# Presets

Written by `python docs/presets.py`; do not edit. `wsss presets` prints the table.

A preset is an overlay on `params.yaml`: a data set, or a paper's recipe with the paper's own
numbers and schedule on one. Recipes of a paper are not tuned here; what differs from the paper
is listed. Scores are mIoU in percent, those of the papers' authors unless said otherwise; none
is ours where a recipe was not run here. Data folders come from the environment: `VOC_ROOT`,
`COCO_ROOT`, `DATA_ROOT`. Recipes fetch their ImageNet weights once from the Hugging Face hub; for
a file of your own set `backbone.weights: file:PATH`, `torchvision`'s ResNets included.
"""
CHECKPOINTS = """\
## Published checkpoints

A published checkpoint takes a training's place, so that it is scored under this protocol:

    wsss import --list
    wsss import res50_cam.pth --layout irn-resnet50-cam > imported.yaml
    snakemake --cores all --configfile workflow/presets/voc.yaml imported.yaml

`imported.yaml` holds a variant whose stage converts the file instead of training. Metadata of the
weights and every metrics file then say `imported`, with the layout and the file's SHA-256. Every
key of the file must be known and every shape fit. Layouts were read from published code and
tested against networks written anew from it; none has been tried on a published file yet.
"""


def page() -> str:
    """Return the whole page."""
    presets = read_presets(FOLDER)
    lines = [
        INTRODUCTION,
        "| preset | data set | variant | run here | published mIoU |",
        "| --- | --- | --- | --- | --- |",
        *map(_row, presets),
        "",
    ]
    for preset in presets:
        if preset.about is not None:
            lines += _section(preset, preset.about)
    return "\n".join([*lines, CHECKPOINTS.rstrip()]) + "\n"


def _row(preset: Preset) -> str:
    about = preset.about
    link = f"[{preset.name}](../workflow/presets/{preset.name}.yaml)"
    if about is None:
        return f"| {link} | {preset.dataset} | – | – | {preset.first} |"
    run = "yes" if about.run_here else "no"
    return f"| {link} | {preset.dataset} | {preset.variant} | {run} | {headline(about)} |"


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _section(preset: Preset, about: About) -> list[str]:
    run = "run here: see [results.md](results.md)" if about.run_here else "not run here"
    return [
        f"## {about.title}: {preset.name}",
        "",
        f"{about.paper}. Code: {about.code}",
        "",
        f"    {about.command}",
        "",
        f"- Status: {run}",
        f"- Numbers: {about.numbers}",
        f"- Hardware: {about.hardware}",
        f"- Hours: {_number(about.hours.value)} ({about.hours.source})",
        *(
            f"- Expected, {what}: {one.miou} ({one.setting}; {one.source})"
            for what, one in about.expected.items()
        ),
        *(f"- Differs: {text}" for text in about.deviations),
        "",
    ]


if __name__ == "__main__":
    (DOCS / "presets.md").write_text(page(), encoding="utf-8")
