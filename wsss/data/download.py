"""Fetches a file with resume and checksum. Nothing is ever fetched unless a user asks for it.

What has arrived waits as ``NAME.part`` beside the destination; a later call asks the server for
the rest (HTTP Range, RFC 9110 §14). Only a file whose checksum is right gets its name.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from wsss.atomic import writing
from wsss.errors import UserError

TIMEOUT = 60.0  # seconds without a byte
CHUNK = 1 << 20
PART = ".part"


def fetch(url: str, path: Path, md5: str) -> bool:
    """Bring ``url`` to ``path`` if it is not there yet; returns whether anything was fetched.

    Raises UserError if ``path`` holds something else, the server does not answer or breaks off,
    the disk is too small, or the checksum is not ``md5`` (then nothing is kept).
    """
    if path.is_file():
        _verify(path, md5, f"{path} is another file: move it away or delete it, and run again")
        return False
    if not url.startswith(("http://", "https://")):
        raise UserError(f"--url {url}: give an address that starts with http:// or https://")
    part = path.with_name(path.name + PART)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _receive(url, part)
        try:
            _verify(part, md5, f"{url} is damaged or another file; what came was deleted")
        except UserError:
            # Whatever is wrong with it, more bytes at its end would not mend it.
            part.unlink()
            raise
        part.replace(path)
    return True


def checksum(path: Path) -> str:
    """The MD5 of a file in hex; archives' publishers name no better one."""
    with path.open("rb") as stream, _bar(path.name, path.stat().st_size, "checking") as bar:
        digest = hashlib.md5(usedforsecurity=False)
        while data := stream.read(CHUNK):
            digest.update(data)
            bar.update(len(data))
    return digest.hexdigest()


def _verify(path: Path, md5: str, advice: str) -> None:
    found = checksum(path)
    if found != md5.lower():
        raise UserError(f"wrong checksum: MD5 is {found}, expected {md5.lower()}: {advice}")


def _receive(url: str, part: Path) -> None:
    """Append what is missing to ``part``, or start anew where the server cannot continue."""
    have = part.stat().st_size if part.is_file() else 0
    try:
        with _open(url, have) as response:
            start = _start(response, have)
            length = response.headers.get("Content-Length", "")
            total = start + int(length) if length.isdecimal() else None
            _need(part.parent, start if total is None else total, start)
            with part.open("r+b" if start else "wb") as stream:
                stream.seek(start)
                stream.truncate()
                got = start + _copy(response, stream, part, start, total)
    except _Complete:
        return
    except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise UserError(f"{url}: the connection broke ({error!r}): {_continues(part)}") from error
    if total is not None and got < total:
        raise UserError(f"{url}: the connection broke at {got} of {total}: {_continues(part)}")


class _Complete(Exception):  # noqa: N818 - no error
    """The server has nothing beyond what is there already."""


def _continues(part: Path) -> str:
    return f"the same command continues from {part}"


@contextmanager
def _open(url: str, have: int) -> Iterator[http.client.HTTPResponse]:
    """Ask for a file from byte ``have`` on. UserError names whatever the server refuses."""
    headers = {"User-Agent": "wsss", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)  # http(s), see fetch
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and have:
                # Of a whole file there is no rest; of a wrong one the checksum tells.
                raise _Complete from error
            raise UserError(
                f"{url}: the server says {error.code} {error.reason}: check the address, or give "
                "another with --url"
            ) from error
    except urllib.error.URLError as error:
        raise UserError(
            f"{url}: no answer ({error.reason}): check the network, or give another with --url"
        ) from error
    with response:
        yield response


def _start(response: http.client.HTTPResponse, have: int) -> int:
    """Where the answer begins: at ``have``, or at 0 where the server ignores ranges."""
    if response.status != 206:
        return 0
    field = response.headers.get("Content-Range", "")
    match = re.match(r"bytes (\d+)-", field)
    if match is None or int(match[1]) != have:
        raise UserError(f"the server answers with {field or 'no range'}, not from byte {have} on")
    return have


def _need(folder: Path, total: int, have: int) -> None:
    """Refuse before hours of work what the disk cannot hold."""
    free = shutil.disk_usage(folder).free
    if total - have > free:
        raise UserError(
            f"disk full: {folder} has {free / 1e9:.1f} GB, {(total - have) / 1e9:.1f} GB more are "
            "needed: free some space and rerun"
        )


def _copy(
    response: http.client.HTTPResponse,
    stream: BinaryIO,
    part: Path,
    start: int,
    total: int | None,
) -> int:
    """Write all that comes; returns the number of bytes."""
    written = 0
    with _bar(part.name.removesuffix(PART), total, "fetching", start) as bar:
        # read1 hands on what has come: read would lose a broken connection's last bytes.
        while data := response.read1(CHUNK):
            stream.write(data)
            written += len(data)
            bar.update(len(data))
    return written


def _bar(name: str, total: int | None, verb: str, start: int = 0) -> tqdm[Any]:
    return tqdm(
        desc=f"{verb} {name}", total=total, initial=start, unit="B", unit_scale=True, disable=None
    )
