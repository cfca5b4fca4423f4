"""The parts of the page of data without masks: agreement, unsure images, a contact sheet."""

from __future__ import annotations

from pathlib import Path

from wsss.data.manifest import Item
from wsss.pictures.choice import spread
from wsss.report.agreement import (
    FOUND,
    Agreement,
    Sources,
    agreement,
    contradictions,
    image_agreement,
    tagged_ids,
    unsure,
)
from wsss.report.blocks import (
    Block,
    Fold,
    Gallery,
    Section,
    Sheet,
    Strip,
    Swatches,
    Table,
    Text,
    Thumb,
)
from wsss.report.comparison import ABSENT
from wsss.report.results import Results
from wsss.report.thumbs import Thumbs, swatches

# Unsure images that are listed by name, beside those that are shown.
_LISTED = 20


def predicted_items(results: Results) -> list[Item]:
    """The images that get a prediction: list val, or the training images without one."""
    role = "val" if results.manifest.roles["val"] else "train"
    return results.manifest.role(role)


def unscored_sections(results: Results, thumbs: Thumbs, processes: int) -> list[Section]:
    """Everything about data that cannot be scored."""
    items = predicted_items(results)
    found: dict[str, Agreement] = {}
    for variant, seed in results.runs():
        sources = _sources(results, variant, seed)
        if any(sources):
            name = variant if len(results.seeds) == 1 else f"{variant}, seed {seed}"
            found[name] = agreement(results.manifest, items, sources, processes)
    if not found:
        return [Section("agreement", "Agreement", [Text("Nothing has been predicted yet.")])]
    return [
        _agreement_section(results, found, {item.id: item for item in items}),
        _unsure_section(results, thumbs, found, {item.id: item for item in items}),
        _sheet_section(results, thumbs, items),
    ]


def _sources(results: Results, variant: str, seed: int) -> Sources:
    run = results.run(variant, seed)

    def there(stage: str, *names: str) -> Path | None:
        paths = [run.store(stage, name) for name in names]
        return next((path for path in paths if path.is_file()), None)

    return Sources(
        there("seeds", "crf", "confident", "high"),
        there("pseudo", "masks"),
        there("predict", "masks"),
        there("predict", "scores"),
    )


def _agreement_section(
    results: Results, found: dict[str, Agreement], items: dict[str, Item]
) -> Section:
    about = (
        "This data has no ground truth, so nothing here is accuracy: it tells where tags, seeds, "
        "pseudo masks and predictions contradict each other. A class counts as found in an image "
        f"from {100 * FOUND:g} % of its pixels. Predictions use no tags."
    )
    blocks: list[Block] = [Text(about)]
    overall = [
        [
            name,
            _share(one.same_pixels),
            _share(one.mean_iou),
            str(sum(c.untagged for c in one.classes)),
        ]
        for name, one in found.items()
    ]
    headings = ["run", "same class (% of pixels)", "mean IoU (%)", "untagged finds"]
    notes = ["Untagged finds: pairs of an image and a class predicted there without its tag."]
    caption = "Pseudo masks against predictions of the same images"
    blocks.append(Table(caption, headings, overall, notes))
    for name, one in found.items():
        tables = [_class_table(one), *_contradictions(results, one, items)]
        folded = [Fold(name, tables, open=len(blocks) == 2)]
        blocks += tables if len(found) == 1 else folded
    return Section("agreement", "Agreement", blocks)


def _class_table(one: Agreement) -> Table:
    names = {"seeds": "in seeds", "pseudo": "in pseudo masks", "prediction": "in predictions"}
    headings = [
        "class",
        "tagged images",
        *(f"found {names[layer]} (%)" for layer in one.layers),
        "predicted without tag",
        "IoU pseudo, prediction (%)",
    ]
    rows = [
        [
            row.name,
            str(row.tagged),
            *(_share(row.found[layer]) for layer in one.layers),
            str(row.untagged),
            _share(row.iou),
        ]
        for row in one.classes
    ]
    return Table("Per class: share of its tagged images in which it is found", headings, rows)


def _contradictions(results: Results, one: Agreement, items: dict[str, Item]) -> list[Table]:
    """Images to look at, because their prediction contradicts their tags."""
    entries = contradictions(one.facts, tagged_ids(results.manifest, items))
    if not entries:
        return []

    def names(ids: list[int]) -> str:
        return ", ".join(results.classes[c] for c in ids) or ABSENT

    rows = [[fact.id, names(missed), names(more)] for fact, missed, more in entries[:_LISTED]]
    caption = (
        f"Predictions that contradict their tags: {len(rows)} of {len(entries)} such images, "
        f"of {len(one.facts)} in all"
    )
    headings = ["image", "tagged, not predicted", "predicted, not tagged"]
    return [Table(caption, headings, rows, numbers=False)]


def _share(value: float | None) -> str:
    return ABSENT if value is None else f"{100 * value:.1f}"


def _unsure_section(
    results: Results, thumbs: Thumbs, found: dict[str, Agreement], items: dict[str, Item]
) -> Section:
    blocks: list[Block] = [
        Text(
            "Confidence: the mean over an image's pixels of the highest class probability of the "
            "prediction at all scales, before the CRF. A network may be sure of a background that "
            "is none: see also the predictions that contradict their tags."
        )
    ]
    for name, one in found.items():
        facts = unsure(one.facts, _LISTED)
        rows = []
        for fact in facts:
            predicted = sorted(fact.present.get("prediction", ()))
            classes = ", ".join(results.classes[c] for c in predicted) or "background only"
            tags = ", ".join(items[fact.id].labels) or "no tag"
            same = _share(image_agreement(fact))
            rows.append([fact.id, _share(fact.confidence), tags, classes, same])
        if rows:
            headings = ["image", "confidence (%)", "tags", "predicted", "same as pseudo mask (%)"]
            caption = f"{name}: the {len(rows)} least confident of {len(one.facts)} images"
            table = Table(caption, headings, rows, numbers=False)
            blocks.append(table if len(found) == 1 else Fold(name, [table]))
    first = next(iter(found.values()))
    shown = unsure(first.facts, 2 * results.settings.images)
    if shown:
        strips = [_strip(results, thumbs, items[fact.id]) for fact in shown]
        blocks += [Swatches(swatches(results.manifest.classes, ignore=True)), Gallery(strips)]
    return Section("unsure", "Least confident images", blocks)


def _strip(results: Results, thumbs: Thumbs, item: Item) -> Strip:
    pictures: list[Thumb] = [thumbs.image(item)]
    seen: set[Path] = set()
    for variant in results.variants:
        run = results.run(variant)
        for caption, stage, store in (
            ("CAM", "cam", "maps"),
            ("pseudo mask", "pseudo", "masks"),
            ("prediction", "predict", "masks"),
        ):
            path = run.store(stage, store)
            if path.is_file() and path not in seen:
                seen.add(path)
                draw = thumbs.heat if stage == "cam" else thumbs.mask
                pictures.append(draw(item, path, f"{variant}: {caption}"))
    return Strip(f"{item.id}: {', '.join(item.labels) or 'no tag'}", "", pictures)


def _sheet_section(results: Results, thumbs: Thumbs, items: list[Item]) -> Section:
    chosen = spread(items, results.settings.sheet)
    blocks: list[Block] = []
    for variant in results.variants:
        path = results.run(variant).store("predict", "masks")
        if path.is_file():
            sheet = Sheet([thumbs.mask(item, path, item.id) for item in chosen])
            text = f"{variant}: predictions of {len(chosen)} of {len(items)} images"
            blocks.append(Fold(text, [sheet], open=not blocks))
    if blocks:
        blocks.insert(0, Swatches(swatches(results.manifest.classes)))
    else:
        blocks = [Text("Nothing has been predicted yet.")]
    return Section("sheet", "Contact sheet", blocks)
