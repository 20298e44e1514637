"""The programs in examples/ run as they stand, and their own assertions hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# The examples that need no extra; tests/libraries has the others.
EXAMPLES = [
    example
    for example in sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
    if example.stem != "run_elsewhere"
]


PROGRAMS = ["sdk_both_ways"]  # of several files, with a README that shows what each prints


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_example(example: Path, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-W", "error", example],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert not done.stderr


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name: str):
    folder = Path(__file__).parents[2] / "examples"
    done = subprocess.run(
        # From 3.12 on Python warns of each fork in a process with threads, which one example shows.
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-m", name],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"```text\n{done.stdout}```\n" in (folder / name / "README.md").read_text()
