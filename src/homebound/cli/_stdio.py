"""Standard output, for scripts, and standard error, for people; either may be closed or full."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from ._errors import OutputError


def fill_standard_streams() -> None:
    """Open /dev/null for each closed standard stream, and start Python again.

    Otherwise an image or a socket could get the descriptor of standard error, and libraries would
    write messages to it. Python must start again, as other files have those descriptors by now.
    """
    streams = enumerate((sys.stdin, sys.stdout, sys.stderr))
    closed = [number for number, stream in streams if stream is None]
    if not closed:
        return
    null = os.open(os.devnull, os.O_RDWR)
    for number in closed:
        os.dup2(null, number)  # replaces any file that has it
        os.set_inheritable(number, True)  # in case null was this number
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  (no shell is wanted)


def put(text: str) -> None:
    """Write a line to standard output and flush; do nothing if it is closed. Raises OutputError."""
    stream: TextIO | None = sys.stdout
    if stream is None:
        return
    try:
        stream.write(f"{text}\n")
        stream.flush()
    except OSError as error:
        discard_output(stream)
        raise OutputError(f"cannot write to standard output: {error.strerror}") from error


def tell(text: str) -> None:
    """Write a line to standard error; a failure to do so is ignored."""
    stream: TextIO | None = sys.stderr
    if stream is None:
        return
    try:
        stream.write(f"{text}\n")
        stream.flush()
    except OSError:
        discard_output(stream)


def has_terminal() -> bool:
    """Return whether standard error is a terminal."""
    stream: TextIO | None = sys.stderr
    return stream is not None and not stream.closed and stream.isatty()


def discard_output(stream: TextIO) -> None:
    """Redirect the stream to /dev/null, with its unflushed data.

    Python flushes at exit, and would fail again.
    """
    fd = os.open(os.devnull, os.O_WRONLY)
    os.dup2(fd, stream.fileno())
    os.close(fd)
