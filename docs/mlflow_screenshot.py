"""Take a picture of MLflow's page that compares variants.

    python docs/mlflow_screenshot.py voc-animals affinitynet irnet
        --uri sqlite:///mlflow.db --out docs/images/mlflow-compare.png

Starts a server on a free port of this machine, opens the page in headless Chromium, folds away what
is the same in all variants, and waits until the page has drawn itself.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import urlopen

import aiohttp

from wsss.atomic import atomic_path
from wsss.config.resolve import read_yaml
from wsss.config.schema import Tracking
from wsss.tracking.results import run_key
from wsss.tracking.store import open_store
from wsss.tracking.writer import runs_by_key

WIDTH, HEIGHT = 1280, 1500
# What the plot shows beside the parameters that differ.
METRICS = ("pseudo_miou", "final_miou", "share_of_supervised")
SECONDS = 300
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# The panel of the assistant hides a third of the page.
CLOSE_PANEL = """
for (const button of document.querySelectorAll('button')) {
  const id = button.getAttribute('data-component-id') || '';
  if (id.includes('chat_panel.close')) { button.click(); }
}
"""
# Only what differs between the runs.
DIFF_ONLY = """
for (const one of document.querySelectorAll('button[role=switch][aria-checked=false]')) {
  one.click();
}
"""
FOLD_DETAILS = """
[...document.querySelectorAll('[role=button][aria-expanded=true]')]
  .filter(header => header.textContent.trim() === 'Run details')
  .forEach(header => header.click())
"""
# The second of two lists to choose from: parameters, metrics.
OPEN_METRICS = """
{
  const input = document.querySelectorAll('input[role=combobox]')[1];
  input.closest('[class*=select-selector]')
    .dispatchEvent(new MouseEvent('mousedown', {bubbles: true}));
  input.focus();
}
"""
CLEAR_METRICS = """
document.querySelectorAll('input[role=combobox]')[1].closest('[class*=select-selector]')
  .querySelectorAll('[class*=item-remove]').forEach(cross => cross.click())
"""


def free_port() -> int:
    """Return a port that nobody listens on."""
    with closing(socket.socket()) as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


@contextmanager
def running(command: list[str], address: str) -> Iterator[None]:
    """Run a server in the block; it answers at ``address`` when the block begins."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                urlopen(address, timeout=5).read()
                break
            except (URLError, OSError):
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"error: {command[0]} does not answer at {address}")
                time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait()


def compare_page(uri: str, dataset: str, variants: list[str], seed: int) -> str:
    """Return the part of the page's address after the server's."""
    raw = read_yaml(Path(__file__).parents[1] / "params.yaml")["tracking"]
    store = open_store(Tracking.model_validate({**raw, "uri": uri}))
    experiment = store.experiment(dataset)
    known = runs_by_key(store, experiment)
    keys = [run_key(dataset, variant, seed) for variant in variants]
    if missing := [key for key in keys if key not in known]:
        sys.exit(f"error: {uri} holds no {', '.join(missing)}: run `wsss publish` first")
    ids = [known[key][0].info.run_id for key in keys]
    runs, experiments = quote(json.dumps(ids)), quote(json.dumps([experiment]))
    face = "workflowType=machine_learning"
    return f"/#/compare-runs?runs={runs}&experiments={experiments}&{face}"


class Page:
    """A browser's page, steered by its debugging protocol."""

    def __init__(self, socket_: aiohttp.ClientWebSocketResponse) -> None:
        self.socket, self.numbers = socket_, itertools.count(1)

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command and wait for its answer."""
        number = next(self.numbers)
        await self.socket.send_json({"id": number, "method": method, "params": params})
        while True:
            answer = await self.socket.receive_json(timeout=SECONDS)
            if answer.get("id") == number:
                result: dict[str, Any] = answer["result"]
                return result

    async def run(self, script: str) -> Any:
        """Run JavaScript; return the value of its last expression."""
        answer = await self.call("Runtime.evaluate", expression=script, returnByValue=True)
        return answer["result"].get("value")

    async def until(self, script: str) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + SECONDS
        while not await self.run(script):
            if time.monotonic() > deadline:
                sys.exit(f"error: the page did not come to {script!r}")
            await asyncio.sleep(0.3)


async def choose_metric(page: Page, name: str) -> None:
    """Add a metric to the plot, if the runs have it."""
    option = f"document.querySelector('[class*=select-item-option][title=\"{name}\"]')"
    await page.run(OPEN_METRICS)
    await page.call("Input.insertText", text=name)
    await page.until(f"{option} !== null")
    await page.run(f"{option}.click()")


async def picture(debugger: str, address: str, runs: int) -> bytes:
    """Return a PNG of the comparison of ``runs`` runs."""
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{debugger}/json") as answer:
            pages = [page for page in await answer.json() if page["type"] == "page"]
        async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as ws:
            page = Page(ws)
            size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
            await page.call("Emulation.setDeviceMetricsOverride", **size)
            await page.call("Page.navigate", url=address)
            await page.until(f"document.body.innerText.includes('Comparing {runs} Runs')")
            await page.until("document.querySelectorAll('button[role=switch]').length >= 2")
            for script in (CLOSE_PANEL, DIFF_ONLY, FOLD_DETAILS, CLEAR_METRICS):
                await page.run(script)
            for name in METRICS:
                await choose_metric(page, name)
            await page.run("document.activeElement.blur()")
            await asyncio.sleep(3)  # the plot is drawn again
            shot = await page.call("Page.captureScreenshot", format="png")
            return base64.b64decode(shot["data"])


def main() -> None:
    """Publish nothing; start what is needed, take the picture, stop it again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("variants", nargs="+")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--uri", default="sqlite:///mlflow.db")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"error: none of {', '.join(BROWSERS)} is installed")
    page = compare_page(args.uri, args.dataset, args.variants, args.seed)
    port, debugging = free_port(), free_port()
    server, debugger = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{debugging}"
    serve = ["mlflow", "server", "--backend-store-uri", args.uri, "--host", "127.0.0.1"]
    with (
        tempfile.TemporaryDirectory() as profile,
        running([*serve, "--port", str(port), "--workers", "1"], f"{server}/health"),
        running(
            [
                *(browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *(f"--window-size={WIDTH},{HEIGHT}", f"--user-data-dir={profile}"),
                *(f"--remote-debugging-port={debugging}", "about:blank"),
            ],
            f"{debugger}/json/version",
        ),
    ):
        png = asyncio.run(picture(debugger, server + page, len(args.variants)))
    with atomic_path(args.out) as temporary:
        temporary.write_bytes(png)


if __name__ == "__main__":
    main()
