"""`homebound copy` with its user: Ctrl-C while a stream waits, and what a terminal shows."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from .programs import TIMEOUT

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
COPY = [sys.executable, "-m", "homebound", "copy"]


def until_exists(path: Path) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_ctrl_c_while_the_input_waits(tmp_path: Path):
    target = tmp_path / "target"
    with subprocess.Popen([*COPY, "-", str(target)], stdin=subprocess.PIPE) as process:
        until_exists(target)
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 130


def test_ctrl_c_while_the_output_waits(tmp_path: Path):
    source = tmp_path / "source"
    source.write_bytes(b"x" * 4 * MIB)
    command = [*COPY, str(source), "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        os.read(process.stdout.fileno(), 1)
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 130


def shown_until(terminal: int, word: bytes) -> str:
    """Read what a terminal shows, up to the end of the line that has the word.

    The kernel passes on in parts, and a moment later, what was written to the other end.
    """
    shown = b""
    while word not in shown or not shown.endswith(b"\n"):
        shown += os.read(terminal, MIB)
    return shown.decode()


@pytest.mark.parametrize("options", [[], ["--verify"]])
def test_a_bar_and_a_summary(tmp_path: Path, options: list[str]):
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        file.write(b"x" * MIB)
        file.truncate(8 * MIB)
    ours, theirs = pty.openpty()
    try:
        command = [*COPY, str(source), str(target), *options]
        subprocess.run(command, stderr=theirs, check=True, timeout=TIMEOUT)
        shown = shown_until(ours, b" in ")
    finally:
        os.close(ours)
        os.close(theirs)
    assert "copying" in shown
    assert ("verifying" in shown) == bool(options)
    last = shown.splitlines()[-1]
    assert "copied 8 MiB, 1 MiB of it data, in " in last
    assert last.endswith(", verified") == bool(options)


def test_a_terminal_that_goes_away_is_no_error(tmp_path: Path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"x" * MIB)
    ours, theirs = pty.openpty()
    os.close(ours)
    try:
        command = [*COPY, str(source), str(target)]
        subprocess.run(command, stderr=theirs, check=True, timeout=TIMEOUT)
    finally:
        os.close(theirs)
    assert target.read_bytes() == source.read_bytes()
