"""The folders in examples/: each program runs as its README says, and prints what stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
# The programs by their folders; each checks itself with assertions.
PROGRAMS = {
    "asgi_threads": ["asgi_threads/asgi_threads.py", "--homes", "4", "--check"],
    "agent_tools": ["agent_tools/agent_tools.py"],
    "c_callback": ["c_callback/c_callback.py"],
    "cross_loop_lock": ["cross_loop_lock/cross_loop_lock.py"],
    "tinyvm": ["tinyvm/tinyvm.py"],
}
NEEDS = {"asgi_threads": ["uvicorn", "websockets"], "tinyvm": ["unicorn"]}
OUTPUT = re.compile(r"^```text\n(?P<output>.*?)^```$", re.MULTILINE | re.DOTALL)
ELSEWHERE = {"sdk_both_ways"}  # tests/core/test_examples.py runs it


@pytest.mark.parametrize("folder", PROGRAMS)
def test_program(folder: str):
    for needed in NEEDS.get(folder, ()):
        if not find_spec(needed):
            pytest.skip(f"{needed} is not installed")
    if folder == "c_callback" and not shutil.which(os.environ.get("CC", "cc").split()[0]):
        pytest.skip("no C compiler is installed")
    done = subprocess.run(
        [sys.executable, "-W", "error", *PROGRAMS[folder]],
        cwd=EXAMPLES,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    readme = (EXAMPLES / folder / "README.md").read_text()
    shown = OUTPUT.search(readme)
    assert shown is not None
    assert done.stdout == shown["output"]


def test_each_folder_has_a_readme_and_a_test():
    folders = {each.name for each in EXAMPLES.iterdir() if each.is_dir()} - {"__pycache__"}
    assert folders == {*PROGRAMS, *ELSEWHERE}
    assert all((EXAMPLES / each / "README.md").exists() for each in folders)
