"""A run of `homebound`, to its end, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

TIMEOUT = 30


def homebound(*arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run it with these arguments; its output is captured unless `options` say otherwise."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    command = [sys.executable, "-m", "homebound", *(str(each) for each in arguments)]
    return subprocess.run(command, check=False, timeout=TIMEOUT, **streams)


def succeed(*arguments: object, **options: Any) -> str:
    """Run it; return its standard output, after checking that it succeeded without a word."""
    done = homebound(*arguments, **options)
    assert (done.returncode, done.stderr) == (0, b"")
    return (done.stdout or b"").decode()


def fail(*arguments: object, code: int = 1, **options: Any) -> str:
    """Run it; return its one line of error, after checking its status."""
    done = homebound(*arguments, **options)
    text: str = done.stderr.decode()
    assert done.returncode == code, text
    assert text.count("\n") == 1, text
    assert text.startswith("homebound")
    return text.strip()
