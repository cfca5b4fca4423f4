"""The page: its sections in order, rendered into one HTML file that needs no other."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from wsss.report import configuration
from wsss.report.blocks import Section
from wsss.report.curves import threshold_section, training_section
from wsss.report.examples import example_section
from wsss.report.intervals import interval_section
from wsss.report.overview import overview_section, summary
from wsss.report.palette import DARK, LIGHT
from wsss.report.results import Results
from wsss.report.sections import (
    class_section,
    comparison_section,
    confusion_section,
    cost_section,
)
from wsss.report.thumbs import Thumbs
from wsss.report.unscored import unscored_sections

TEMPLATE = "page.html.j2"
STYLE = "page.css"


def sections(results: Results, processes: int) -> list[Section]:
    """Everything the page says, in order."""
    thumbs = Thumbs(results.manifest, results.settings.thumbnail)
    if results.scored:
        parts = [
            comparison_section(results),
            interval_section(results),
            class_section(results),
            example_section(results, thumbs),
            confusion_section(results),
            threshold_section(results),
        ]
    else:
        parts = [*unscored_sections(results, thumbs, processes)]
    found = [*parts, training_section(results), cost_section(results), overview_section(results)]
    return [part for part in found if part is not None] + [configuration.section(results.params)]


def render(
    title: str, said: str, parts: list[Section], looks: dict[str, tuple[int, int, int]]
) -> str:
    """Return the HTML.

    Args:
        title: of the page.
        said: a sentence below it.
        parts: its sections.
        looks: each variant's number, colour and pattern, as in the drawings.
    """
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    text = environment.get_template(TEMPLATE).render(
        title=title,
        summary=said,
        style=(folder / STYLE).read_text(encoding="utf-8"),
        colours=list(enumerate(zip(LIGHT, DARK, strict=True))),
        sections=parts,
        looks=looks,
    )
    return f"{text.strip()}\n"


def page(results: Results, processes: int) -> str:
    """Return the whole page of a data set's results."""
    looks = {v: (look.number, look.series, look.round) for v, look in results.looks.items()}
    title = f"{results.where.dataset}: report"
    return render(title, summary(results), sections(results, processes), looks)
