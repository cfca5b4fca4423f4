"""Tables as plain text and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Plain text columns, headings first: names to the left, numbers to the right."""
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    lines = []
    for line in table:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def markdown(title: str, table: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    """A titled Markdown table, headings first, with notes below."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    ruler = line(["---", *["--:"] * (len(table[0]) - 1)])
    body = [line(table[0]), ruler, *map(line, table[1:])]
    # A leading * or ± must stay text.
    footer = [part for note in notes for part in ("", note.replace("*", "\\*"))]
    heads = [body[0].replace("*", "\\*"), *body[1:]]
    return "\n".join([f"# {title}", "", *heads, *footer]) + "\n"
