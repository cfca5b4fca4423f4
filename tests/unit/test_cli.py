"""The command line: help for everything, one line for a mistake, a log for the rest."""

from __future__ import annotations

import argparse
import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from wsss.artifacts import MaskStore, MaskStoreWriter
from wsss.cli import build_parser, main
from wsss.commands.options import shard
from wsss.config.resolve import overlay
from wsss.config.slices import MODULES
from wsss.context import Context
from wsss.errors import UserError

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _fresh_logging() -> Iterator[None]:
    """A process runs one command; here many run in one."""
    loggers = [logging.getLogger(name) for name in ("wsss", "py.warnings")]
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield
    logging.captureWarnings(False)
    for logger, handlers, level, propagate in before:
        for handler in logger.handlers:
            if handler not in handlers:
                handler.close()
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate


@pytest.fixture
def params(tiny_raw: dict[str, Any], tmp_path: Path) -> Path:
    """The shrunk configuration as a file; its results go to the temporary folder."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_raw))
    return path


@pytest.fixture
def run(params: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command with the shrunk configuration; returns exit code, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = main([*arguments, "--params", str(params)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def commands() -> dict[str, argparse.ArgumentParser]:
    """Every subcommand, nested ones included, by what is typed."""

    def below(parser: argparse.ArgumentParser, prefix: str) -> Iterator[tuple[str, Any]]:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, child in action.choices.items():
                    yield f"{prefix}{name}", child
                    yield from below(child, f"{prefix}{name} ")

    return dict(below(build_parser(), ""))


# Help


@pytest.mark.parametrize("command", ["", *commands()])
def test_help_says_what_a_command_does(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: wsss {command}".strip() in text
    if command == "data":
        assert "validate the configured data" in text
        return
    # A sentence between the usage and the list of arguments.
    description = text.split("\n\n")[1]
    assert len(description.split()) >= 3
    assert description.strip().endswith((".", "error."))


def test_the_overview_names_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    offered = commands()
    for stage in MODULES.values():
        name = {"boxes": "evaluate"}.get(stage, stage)
        assert name in offered
        assert f"    {name} " in text


def test_every_option_is_explained() -> None:
    for name, parser in commands().items():
        for action in parser._actions:
            explained = action.help or isinstance(action, argparse._SubParsersAction)
            assert explained or (name == "merge" and not action.option_strings), (name, action)


@pytest.mark.parametrize(
    "arguments", [[], ["data"], ["clasify"], ["seeds"], ["seeds", "gamma"], ["evaluate", "x"]]
)
def test_wrong_usage_exits_with_two(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: wsss" in capsys.readouterr().err


# Arguments


@pytest.mark.parametrize(("text", "pair"), [("0/1", (0, 1)), ("0/4", (0, 4)), ("3/4", (3, 4))])
def test_shards(text: str, pair: tuple[int, int]) -> None:
    assert shard(text) == pair


@pytest.mark.parametrize("text", ["4/4", "-1/4", "1", "1/", "/2", "a/b", "1/2/3", "0/0", "1.0/2"])
def test_shards_that_are_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["cam", f"--shard={text}"])
    assert stop.value.code == 2
    assert f"argument --shard: {text!r}" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["-1", "1.5", "x", ""])
def test_seeds_that_are_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["cam", f"--seed={text}"])
    assert stop.value.code == 2
    assert f"argument --seed: {text!r} is no whole number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "function", "expected"),
    [
        ("manifest", "manifest.run", []),
        ("classify", "classify.run", []),
        ("cam", "cam.run", ["cam/maps.zip", 0, 1]),
        ("cam --shard 1/3", "cam.run", ["cam/shards/maps.1of3.zip", 1, 3]),
        ("seeds alpha", "seeds.run_alpha", ["seeds/low.zip", "seeds/high.zip", (0, 1)]),
        (
            "seeds alpha --shard 0/2",
            "seeds.run_alpha",
            ["seeds/shards/low.0of2.zip", "seeds/shards/high.0of2.zip", (0, 2)],
        ),
        ("seeds label", "seeds.run_label", ["seeds/crf.zip", (0, 1)]),
        ("affinity", "affinity.run", []),
        ("walk", "walk.run", ["walk/scores.zip", 0, 1]),
        ("walk --shard 0/2", "walk.run", ["walk/shards/scores.0of2.zip", 0, 2]),
        ("pseudo", "pseudo.run", ["pseudo/masks.zip"]),
        ("segment", "segment.run", []),
        ("predict", "predict.run", ["predict/scores.zip", "predict/single.zip", 0, 1]),
        (
            "predict --shard 1/2",
            "predict.run",
            ["predict/shards/scores.1of2.zip", "predict/shards/single.1of2.zip", 1, 2],
        ),
        ("crf", "crf.run", ["predict/masks.zip", (0, 1)]),
        ("crf --shard 1/2", "crf.run", ["predict/shards/masks.1of2.zip", (1, 2)]),
        ("evaluate cam", "evaluate.run", ["cam"]),
        ("evaluate final", "evaluate.run", ["final"]),
    ],
)
def test_a_command_hands_its_stage_what_it_needs(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    command: str,
    function: str,
    expected: list[Any],
) -> None:
    calls: list[tuple[Any, ...]] = []
    module, _, name = function.partition(".")
    monkeypatch.setattr(
        import_module(f"wsss.stages.{module}"), name, lambda *values: calls.append(values)
    )
    job = [] if command == "manifest" else ["--variant", "supervised", "--seed", "3"]
    assert run(*command.split(), *job) == (0, "", "")
    (context, *rest), *others = calls
    assert not others
    folder = tmp_path / "results" / "scenes" / "supervised" / "seed3"
    assert rest == [folder / v if isinstance(v, str) and "/" in v else v for v in expected]
    assert isinstance(context, Context)
    assert MODULES[context.stage] == module
    assert (context.variant, context.seed) == (("", 0) if not job else ("supervised", 3))


def test_variant_and_seed_default_to_the_first(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Context] = []
    monkeypatch.setattr("wsss.stages.crf.run", lambda context, *_: seen.append(context))
    assert run("crf")[0] == 0
    assert (seen[0].variant, seen[0].seed) == ("baseline", 0)


def test_overlays_lie_on_top_of_each_other(
    params: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "top.yaml").write_text("crf: {iterations: 3}\n")
    seen: list[Context] = []
    monkeypatch.setattr("wsss.stages.crf.run", lambda context, *_: seen.append(context))
    assert main(["crf", "--params", str(params), str(tmp_path / "top.yaml")]) == 0
    assert main(["crf", "--params", str(params), "--params", str(tmp_path / "top.yaml")]) == 0
    assert [context.config.crf.iterations for context in seen] == [3, 3]


# Mistakes


def test_a_mistake_is_one_line_on_stderr_and_in_the_log(run: Run, tmp_path: Path) -> None:
    code, out, err = run("crf", "--log", str(tmp_path / "deep" / "crf.log"))
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "dataset.json does not exist" in err
    text = (tmp_path / "deep" / "crf.log").read_text()
    # Whoever looks for more finds it there.
    assert err.strip() in text
    assert "Traceback" in text


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"crf: [", "is not valid YAML"),
        (b"- a\n", "must hold a mapping of sections, not a list"),
        (b"", "'variants' must map names"),
        (b"\xff", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_configurations_that_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, says: str
) -> None:
    path = tmp_path / "p.yaml"
    path.mkdir() if content is None else path.write_bytes(content)
    assert main(["manifest", "--params", str(path)]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert str(path) in err
    assert says in err


def test_an_unknown_variant(run: Run, tmp_path: Path) -> None:
    code, _, err = run("cam", "--variant", "base")
    assert code == 1
    assert "unknown variant 'base': did you mean 'baseline'?" in err
    assert not (tmp_path / "results").exists()


def test_wrong_method_parameters_stop_before_training(
    run: Run, params: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = yaml.safe_load(params.read_text())
    wrong = {"variants": {"baseline": {"method": {"params": {"tau": 1}}}}}
    params.write_text(yaml.safe_dump(overlay(raw, wrong)))
    monkeypatch.setattr("wsss.stages.classify.run", lambda _: pytest.fail("it trains"))
    code, _, err = run("classify")
    assert code == 1
    assert "variants.baseline: method.params.tau is 1" in err


def test_an_unexpected_error_leaves_its_traceback_in_the_log(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(_: Context) -> None:
        raise ZeroDivisionError("oh no")

    monkeypatch.setattr("wsss.stages.manifest.run", fail)
    code, out, err = run("manifest")
    assert (code, out) == (1, "")
    assert err == "error: unexpected ZeroDivisionError: oh no (traceback in the log file)\n"
    text = (tmp_path / "results" / "scenes" / "logs" / "manifest.log").read_text()
    assert "Traceback (most recent call last)" in text
    assert "in fail" in text


def test_without_a_log_an_unexpected_error_is_not_swallowed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("wsss.context.make_context", fail)
    with pytest.raises(ZeroDivisionError):
        run("manifest")


def test_an_interruption_is_no_crash(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: Context) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("wsss.stages.manifest.run", interrupt)
    code, _, err = run("manifest")
    assert code == 130
    assert err == "interrupted: the same command continues\n"


def test_a_termination_is_no_crash(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsss.stages.manifest.run", lambda _: signal.raise_signal(signal.SIGTERM))
    code, _, err = run("manifest")
    assert code == 143
    assert err == "interrupted: the same command continues\n"


def test_what_a_signal_did_to_a_helper_process_is_no_crash(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Context) -> None:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        raise RuntimeError("DataLoader worker is killed by signal: Terminated")

    monkeypatch.setattr("wsss.stages.manifest.run", fail)
    code, _, err = run("manifest")
    assert code == 143
    assert err == "interrupted: the same command continues\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's full device")
def test_a_log_on_a_full_disk_says_nothing_itself(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error to read is the one that names a result."""

    def fail(_: Context) -> None:
        raise UserError("disk full while writing x: free some space and rerun")

    monkeypatch.setattr("wsss.stages.manifest.run", fail)
    code, _, err = run("manifest", "--log", "/dev/full")
    assert code == 1
    assert err == "error: disk full while writing x: free some space and rerun\n"


def test_a_log_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, err = run("manifest", "--log", str(tmp_path / "file" / "a.log"))
    assert code == 1
    assert err.startswith("error: cannot write the log file")
    assert err.count("\n") == 1


def test_what_the_shell_sees(tmp_path: Path) -> None:
    """In a process of its own: streams, exit codes, nothing printed twice."""

    def shell(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "wsss", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = shell("manifest")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: configuration file params.yaml does not exist\n"
    done = shell("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("wsss ")
    assert not list(tmp_path.iterdir())


# Commands that do something themselves


def _own_photos(folder: Path, params: Path) -> None:
    folder.mkdir()
    Image.new("RGB", (40, 30), (9, 99, 199)).save(folder / "a.png")
    (folder / "labels.csv").write_text("image,labels\na.png,cat\n")
    raw = yaml.safe_load(params.read_text())
    splits = {"train": "train", "seed": None, "tune": None, "val": None}
    data = {"source": "folder", "root": str(folder), "splits": splits}
    changes = {"data": data, "cam": {"threshold": 0.3}}
    params.write_text(yaml.safe_dump(overlay(raw, changes)))


def test_data_check_passes_sound_data(run: Run, params: Path, tmp_path: Path) -> None:
    _own_photos(tmp_path / "photos", params)
    code, out, err = run("data", "check")
    assert (code, err) == (0, "")
    assert "0 of them errors" in out


def test_data_check_reports_every_problem(run: Run, params: Path, tmp_path: Path) -> None:
    _own_photos(tmp_path / "photos", params)
    with (tmp_path / "photos" / "labels.csv").open("a") as stream:
        stream.write("gone.png,cat\ncut.png,cat\n")
    whole = (tmp_path / "photos" / "a.png").read_bytes()
    (tmp_path / "photos" / "cut.png").write_bytes(whole[: len(whole) // 2])
    code, out, err = run("data", "check")
    assert (code, err) == (1, "")
    assert "gone.png" in out
    assert "cut.png" in out
    assert "2 of them errors" in out
    assert not (tmp_path / "results" / "scenes" / "data").exists()


def test_data_check_before_and_after_scenes_are_made(run: Run, tmp_path: Path) -> None:
    assert run("data", "check")[0] == 0
    assert run("manifest") == (0, "", "")
    assert (tmp_path / "results" / "scenes" / "data" / "manifest.csv").exists()
    assert run("data", "check")[0] == 0


def test_merge_joins_stores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [str(tmp_path / f"{number}.zip") for number in range(2)]
    for number, part in enumerate(parts):
        with MaskStoreWriter(part) as store:
            store.add(f"i{number}", np.full((2, 2), number, np.uint8))
    out = tmp_path / "out.zip"
    assert main(["merge", str(out), *parts]) == 0
    assert MaskStore(out).ids == ["i0", "i1"]
    assert main(["merge", str(tmp_path / "none.zip"), parts[0], str(tmp_path / "gone.zip")]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "none.zip").exists()


def test_user_errors_of_a_stage_keep_their_words(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise UserError("the third image is upside down: turn it")

    monkeypatch.setattr("wsss.stages.crf.run", fail)
    assert run("crf") == (1, "", "error: the third image is upside down: turn it\n")
