"""The programs in examples/ run as they stand; one with a README prints what stands there."""

from __future__ import annotations

import os
import re
import shutil
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from .programs import printed_by

EXAMPLES = Path(__file__).parents[2] / "examples"
# The programs by their folders; each checks itself with assertions.
PROGRAMS = {
    "asgi_threads": ["asgi_threads/asgi_threads.py", "--homes", "4", "--check"],
    "agent_tools": ["agent_tools/agent_tools.py"],
    "c_callback": ["c_callback/c_callback.py"],
    "cross_loop_lock": ["cross_loop_lock/cross_loop_lock.py"],
    "dask_offload": ["dask_offload/dask_offload.py"],
    "qt_monitor": ["qt_monitor/qt_monitor.py", "--screenshot", "{tmp_path}/window.png"],
    "tinyvm": ["tinyvm/tinyvm.py"],
}
NEEDS = {
    "asgi_threads": ["uvicorn", "websockets"],
    "dask_offload": ["distributed"],
    "qt_monitor": ["PySide6", "qasync"],
    "tinyvm": ["unicorn"],
}
OUTPUT = re.compile(r"^```text\n(?P<output>.*?)^```$", re.MULTILINE | re.DOTALL)
PACKAGE = "sdk_both_ways"  # run by -m
# tests/libraries/test_dask.py runs the other one.
SINGLE = [each for each in sorted(EXAMPLES.glob("*.py")) if each.stem != "run_elsewhere"]


def skip_unless_it_can_run(folder: str) -> None:
    for needed in NEEDS.get(folder, ()):
        if not find_spec(needed):
            pytest.skip(f"{needed} is not installed")
    if folder == "c_callback" and not shutil.which(os.environ.get("CC", "cc").split()[0]):
        pytest.skip("no C compiler is installed")
    if folder == "qt_monitor":
        pytest.importorskip("PySide6.QtWidgets", exc_type=ImportError)  # libraries of the system
        if sys.version_info < (3, 12) and version("PySide6_Essentials").startswith("6.12."):
            pytest.skip("PySide6 6.12 drops references to True, which ends Python 3.11")


@pytest.mark.parametrize("folder", PROGRAMS)
def test_program(folder: str, tmp_path: Path):
    skip_unless_it_can_run(folder)
    arguments = [each.format(tmp_path=tmp_path) for each in PROGRAMS[folder]]
    printed = printed_by(*arguments, cwd=EXAMPLES)
    readme = (EXAMPLES / folder / "README.md").read_text()
    shown = OUTPUT.search(readme)
    assert shown is not None
    assert printed == shown["output"]


def test_package():
    # From 3.12 on Python warns of each fork in a process with threads, which this example shows.
    forks = ["-W", "error", "-W", "ignore::DeprecationWarning"]
    printed = printed_by(*forks, "-m", PACKAGE, cwd=EXAMPLES, warn=None)
    assert f"```text\n{printed}```\n" in (EXAMPLES / PACKAGE / "README.md").read_text()


@pytest.mark.parametrize("example", SINGLE, ids=lambda example: example.stem)
def test_single_file(example: Path, tmp_path: Path):
    """Its own assertions hold."""
    assert printed_by(example, cwd=tmp_path)


@pytest.mark.slow
def test_load_test():
    """Each contender answers; the figures in the README are of longer runs."""
    skip_unless_it_can_run("asgi_threads")
    program = ["asgi_threads/load_test.py", "--cores", "2", "--runs", "1", "--seconds", "0.1"]
    printed = printed_by(*program, cwd=EXAMPLES, warn=None)
    rates = re.findall(r"^(\w+), .*: ([1-9]\d*) messages/s ", printed, re.MULTILINE)
    assert [kind for kind, _ in rates] == ["echo"] * 4 + ["chat"] * 2


def test_each_folder_has_a_readme_and_a_test():
    folders = {each.name for each in EXAMPLES.iterdir() if each.is_dir()} - {"__pycache__"}
    assert folders == {*PROGRAMS, PACKAGE}
    assert all((EXAMPLES / each / "README.md").exists() for each in folders)
