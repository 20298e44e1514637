"""A run of `homebound` to its end: in a process of its own, or, which is quicker, in this one."""

from __future__ import annotations

import io
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from homebound.cli._main import run_command
from homebound.testing import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TIMEOUT = 50


def homebound(*arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run it in its own process; its output is captured unless `options` say otherwise."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    command = [sys.executable, "-m", "homebound", *(str(each) for each in arguments)]
    return subprocess.run(command, check=False, timeout=TIMEOUT, **streams)


def inside(*arguments: object) -> tuple[int, str, str]:
    """Run it in this process; return its status, its standard output and its standard error."""
    out, err = io.StringIO(), io.StringIO()
    command = ["homebound", *(str(each) for each in arguments)]
    with mock.patch.object(sys, "argv", command), redirect_stdout(out), redirect_stderr(err):
        status = run_command()
    return status, out.getvalue(), err.getvalue()


def succeed(*arguments: object, **options: Any) -> str:
    """Run it; return its standard output, after checking that it succeeded without a word.

    With `options` of `subprocess.run` it gets a process of its own.
    """
    if options:
        done = homebound(*arguments, **options)
        assert (done.returncode, done.stderr) == (0, b"")
        return (done.stdout or b"").decode()
    status, out, err = inside(*arguments)
    assert (status, err) == (0, "")
    return out


def fail(*arguments: object, code: int = 1) -> str:
    """Run it; return its one line of error, after checking its status."""
    status, out, err = inside(*arguments)
    assert (status, out) == (code, ""), err
    assert err.count("\n") == 1, err
    assert err.startswith("homebound")
    return err.strip()


def need(*programs: str) -> None:
    """Skip the test if a program is missing."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def listens(place: Path) -> bool:
    """Return whether a client can connect: the socket is there from its binding on."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(place)) == 0


@contextmanager
def running(place: Path, *command: object) -> Iterator[str]:
    """Run a server until the end of the block; the URI of its socket, without an export."""
    process = subprocess.Popen([str(each) for each in command], stderr=subprocess.DEVNULL)
    try:
        until(lambda: listens(place) or process.poll() is not None, patience=TIMEOUT)
        assert process.poll() is None
        yield f"nbd+unix:///?socket={place}"
    finally:
        process.terminate()
        process.wait(TIMEOUT)
