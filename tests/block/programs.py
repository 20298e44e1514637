"""Programs that tests run in a process of their own, because they change what the system offers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from .refuse_fallocate import NO_FILTER

REFUSE_FALLOCATE = Path(__file__).with_name("refuse_fallocate.py")


def run_program(text: str, *arguments: object) -> None:
    """Run Python's `text`; sys.argv[1:] are the arguments. Fails with what it said on stderr."""
    _succeed([sys.executable, "-c", dedent(text), *map(str, arguments)])


def without_fallocate(text: str, *arguments: object) -> None:
    """Run `text` where the kernel refuses fallocate(2); sys.argv[1:] are the arguments."""
    command = [sys.executable, str(REFUSE_FALLOCATE), dedent(text), *map(str, arguments)]
    if _succeed(command, NO_FILTER):
        pytest.skip("the kernel or the machine has no filter for system calls")


def _succeed(command: list[str], *also: int) -> int:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in {0, *also}, done.stderr
    return done.returncode
