"""Shared parts of the libraries' tests: runners, and programs in processes of their own.

A library that is not installed skips its file: `pytest.importorskip`, which also tells mypy that
nothing is known of its types, installed or not.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

import homebound

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _run_with_loop(main: Any) -> Any:
    with asyncio.Runner(loop_factory=homebound.new_event_loop) as runner:
        return runner.run(main)


@pytest.fixture(params=[homebound.run, _run_with_loop], ids=["run", "new_event_loop"])
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """The two ways to switch a program's loop."""
    runner: Callable[..., Any] = request.param
    return runner


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., str]:
    """`program(source, *arguments)` runs a script in a process of its own; returns its output."""

    def run_it(source: str, *arguments: str, **env: str) -> str:
        script = tmp_path / "program.py"
        script.write_text(textwrap.dedent(source))
        done = subprocess.run(
            [sys.executable, "-W", "error::RuntimeWarning", str(script), *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=50,
            cwd=tmp_path,
            env={**os.environ, **env},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run_it
