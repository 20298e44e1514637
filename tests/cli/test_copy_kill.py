"""A copy that is killed again and again: see kill_copy.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("kill_copy.py")


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("directory", ["/dev/shm", "/var/tmp"])
def test_a_killed_copy_goes_on(directory: str):
    subprocess.run([sys.executable, PROGRAM, "25", directory], check=True, timeout=50)
