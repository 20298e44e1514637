"""Builds and runs spin's verifiers, as many at a time as there are cores, in a program of its own.

It reads a list of checks from standard input, works in the current directory, and writes a line
of JSON for each check that has ended. It is a process of its own because its threads and pipes
would otherwise appear and disappear beside the tests, which look for leaks.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
SPIN = shutil.which("spin")
CC = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
DEPTH = 10_000  # steps in one run; the longest takes some 370
TABLE_BITS = 21
MEGABYTES = 2048
LEVEL = "-O0"  # compiling with -O2 takes longer than it saves in a search of a million states


class Check(NamedTuple):
    """A model, the macros to read it with, and whether to look for runs without an end."""

    model: str
    options: str
    ends: bool = False

    def __str__(self) -> str:
        return f"{self.model}-{self.options}"


class Outcome(NamedTuple):
    """The verifier's report, or why there is none."""

    report: str
    trouble: str = ""


class FailedError(Exception):
    """A program that was to build or run the verifier failed."""


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(
        command, cwd=cwd, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        raise FailedError(f"{' '.join(command)}\n{done.stdout}")
    return done.stdout


def verify(check: Check, tmp: Path) -> str:
    """Build the verifier of a model in `tmp`, run it until its first error, return its report."""
    assert SPIN is not None
    assert CC is not None
    # A copy, and a name without a path: spin has a shell start the preprocessor, unquoted.
    shutil.copy(HERE / f"{check.model}.pml", tmp)
    defines = [f"-D{option}" for option in check.options.split()]
    told = run(SPIN, "-a", *defines, f"{check.model}.pml", cwd=tmp)
    if "rror" in told:
        raise FailedError(told)
    build = ["-w", LEVEL, f"-DMEMLIM={MEGABYTES}", "-DNP" if check.ends else "-DSAFETY"]
    run(CC, *build, "-o", "pan", "pan.c", cwd=tmp)
    search = [f"-m{DEPTH}", f"-w{TABLE_BITS}", *(["-l"] if check.ends else [])]
    return run(str(tmp / "pan"), *search, cwd=tmp)


def outcome(check: Check) -> Outcome:
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        try:
            return Outcome(verify(check, Path(folder)))
        except FailedError as error:
            return Outcome("", str(error))


def main() -> None:
    checks = [Check(*each) for each in json.load(sys.stdin)]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for check, found in zip(checks, pool.map(outcome, checks), strict=True):
            sys.stdout.write(json.dumps([check, found]) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
