"""Draw docs/images/report.png: a report in a wide light window and in a narrow dark one.

    python docs/report_screenshot.py results/voc-animals/report.html

Needs a Chromium or Chrome on the path.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

OUT = Path(__file__).parent / "images" / "report.png"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDE, NARROW, HEIGHT = 1120, 390, 1180
GAP = 14
COLOURS = 256
# What the windows show.
PARTS = ("intervals", "images")


def window(page: Path, part: str, width: int, dark: bool, folder: Path) -> Image.Image:
    """One window on a part of a page.

    The page is framed, because a browser's own window cannot be as narrow as a telephone.
    """
    frame = folder / "frame.html"
    address = f"{page.resolve().as_uri()}#{part}"
    size = f"width:{width}px;height:{HEIGHT}px;border:0"
    frame.write_text(f'<body style="margin:0"><iframe src="{address}" style="{size}"></iframe>')
    out = folder / "window.png"
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        sys.exit(f"error: none of {', '.join(BROWSERS)} is on the path: install one")
    subprocess.run(
        [
            *(browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            "--allow-file-access-from-files",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            f"--window-size={max(width, 600)},{HEIGHT}",
            *(f"--screenshot={out}", frame.as_uri()),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    with Image.open(out) as picture:
        return picture.convert("RGB").crop((0, 0, width, HEIGHT))


def main(page: Path) -> None:
    """Draw both windows side by side."""
    with tempfile.TemporaryDirectory() as folder:
        wide = window(page, PARTS[0], WIDE, False, Path(folder))
        narrow = window(page, PARTS[1], NARROW, True, Path(folder))
    picture = Image.new("RGB", (WIDE + GAP + NARROW, HEIGHT), "#8b949e")
    picture.paste(wide, (0, 0))
    picture.paste(narrow, (WIDE + GAP, 0))
    OUT.parent.mkdir(exist_ok=True)
    few = picture.quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(OUT, optimize=True)
    sys.stdout.write(f"{OUT}\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
