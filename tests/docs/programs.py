"""Programs that the documentation shows, run as a reader would run them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# qasync 0.28 calls it in call_later; Python 3.14 and later warn that it is deprecated.
QASYNC = "ignore:'asyncio.iscoroutinefunction' is deprecated:DeprecationWarning"
# Qt without a screen says so of each window.
OFFSCREEN = "This plugin does not support propagateSizeHints()\n"


def run_program(
    *arguments: str | Path, cwd: Path, warn: str | None = "error"
) -> subprocess.CompletedProcess[str]:
    """Run Python with the arguments; it must not fail.

    `warn` is what becomes of warnings; None leaves that to the arguments.
    """
    warnings = [] if warn is None else ["-W", warn, "-W", QASYNC]
    done = subprocess.run(
        [sys.executable, *warnings, *arguments],
        cwd=cwd,
        env={**os.environ, "QT_QPA_PLATFORM": "offscreen"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def printed_by(*arguments: str | Path, cwd: Path, warn: str | None = "error") -> str:
    """Return what a program prints; it must have nothing to say on stderr."""
    done = run_program(*arguments, cwd=cwd, warn=warn)
    said = done.stderr.replace(OFFSCREEN, "")
    assert not said, said
    return done.stdout
