"""Snakemake's own graph, as its dry run prints it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wsss.errors import UserError

BASE = "params.yaml"
_RULE = re.compile(r"(?:local)?rule (\w+):$")
_FIELD = re.compile(r" {4}(input|output|reason|wildcards): (.*)$")
_TARGET = "all"
# Reasons that lie in the job itself, not in one before it.
_OWN = ("Params have changed", "Code has changed", "Missing output", "Set of input files has")


@dataclass(frozen=True)
class Job:
    """One job of the workflow: files are relative to the project, in the rule's order."""

    rule: str
    wildcards: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    reason: str = ""

    @property
    def changed(self) -> bool:
        """Whether its own parameters, code or files are the reason, not only a job before it."""
        return any(text in self.reason for text in _OWN)

    def __str__(self) -> str:
        values = [v for k, v in self.wildcards.items() if k != "dataset"]
        return f"{self.rule} ({', '.join(values)})" if values else self.rule


def snakemake(files: Sequence[str], *arguments: str) -> list[str]:
    """Return the command line of Snakemake with ``files`` as its configuration.

    ``files`` starts with params.yaml, which the Snakefile itself names.
    """
    if not files or files[0] != BASE:
        raise UserError(
            f"--params starts with {files[0] if files else 'nothing'}: put {BASE} first"
        )
    overlays = ["--configfile", *files[1:]] if len(files) > 1 else []
    return [sys.executable, "-m", "snakemake", *overlays, *arguments]


def jobs(files: Sequence[str], every: bool = False) -> list[Job]:
    """Return the jobs that Snakemake would run for its default target, or ``every`` one of them.

    Raises UserError with Snakemake's own words if it cannot plan.
    """
    if not Path("Snakefile").is_file():
        raise UserError("there is no Snakefile here: run this in the project's folder")
    forced = ["--forceall"] if every else []
    command = snakemake(files, "--dry-run", "--quiet", "progress", *forced)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    if done.returncode:
        raise UserError(f"Snakemake cannot plan the workflow: {complaint(text)}")
    return [job for job in parse(text) if job.rule != _TARGET]


def parse(text: str) -> list[Job]:
    """Read the jobs from what a dry run prints."""
    found: list[dict[str, str]] = []
    for line in text.splitlines():
        if match := _RULE.match(line):
            found.append({"rule": match[1]})
        elif found and (match := _FIELD.match(line)):
            found[-1][match[1]] = match[2]
    return [_job(fields) for fields in found]


def _job(fields: Mapping[str, str]) -> Job:
    wildcards = dict(pair.split("=", 1) for pair in _items(fields.get("wildcards", "")))
    inputs, outputs = (_items(fields.get(name, "")) for name in ("input", "output"))
    return Job(fields["rule"], wildcards, inputs, outputs, fields.get("reason", ""))


def _items(text: str) -> tuple[str, ...]:
    return tuple(text.split(", ")) if text else ()


def complaint(text: str) -> str:
    """Return the one line that says why a tool failed."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"(?i)(error|\w+error\b|\w+exception\b)", line)]
    return (named or lines or ["it says nothing"])[-1].removeprefix("error: ")
