"""Files appear complete or not at all, several together, and the killed leave nothing for long."""

from __future__ import annotations

import errno
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wsss.artifacts import save_json
from wsss.atomic import atomic_path, check_writable, together
from wsss.errors import UserError


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_files_written_together_appear_at_the_end(tmp_path: Path) -> None:
    with together():
        save_json(tmp_path / "a", 1)
        with together():
            save_json(tmp_path / "b", 2)
        assert not names(tmp_path) & {"a", "b"}
    assert names(tmp_path) == {"a", "b"}
    save_json(tmp_path / "c", 3)
    assert names(tmp_path) == {"a", "b", "c"}


def test_one_failure_keeps_all_files_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("earlier")
    with pytest.raises(UserError, match=r"disk full while writing .*b"), together():  # noqa: PT012
        save_json(tmp_path / "a", 1)
        with atomic_path(tmp_path / "b"):
            raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path) == {"a"}
    assert (tmp_path / "a").read_text() == "earlier"
    save_json(tmp_path / "a", 1)
    assert (tmp_path / "a").read_text() == "1\n"


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    host, dead, day = platform.node(), dead_process(), 24 * 3600
    left = {
        f".a.zip.{host}-{dead}.tmp": 0,
        f".a.zip.{host}-{os.getppid()}.tmp": 2 * day,  # alive, however old
        ".a.zip.elsewhere-1.tmp": 0,  # perhaps alive
        ".a.zip.elsewhere-2.tmp": 2 * day,
        ".a.zip.8882.tmp": 2 * day,
        f".b.zip.{host}-{dead}.tmp": 0,  # of another artifact
        "a.zip": 0,
    }
    for name, age in left.items():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    save_json(tmp_path / "a.zip", 1)
    gone = {f".a.zip.{host}-{dead}.tmp", ".a.zip.elsewhere-2.tmp", ".a.zip.8882.tmp"}
    assert names(tmp_path) == set(left) - gone


def test_a_killed_writer_is_cleaned_up_after(tmp_path: Path) -> None:
    code = f"""if True:
        import os, signal
        from wsss.atomic import atomic_path
        with atomic_path({str(tmp_path / "a")!r}) as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", code], check=False)
    assert len(names(tmp_path)) == 1
    check_writable(tmp_path / "a")
    assert not names(tmp_path)


def test_a_folder_that_cannot_be_is_found_out_first(tmp_path: Path) -> None:
    check_writable(tmp_path / "deep" / "a")
    assert not names(tmp_path / "deep")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*file/a: check the folder"):
        check_writable(tmp_path / "file" / "a")
