"""Standard output, for scripts, and standard error, for people; either may be closed or full."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from ._errors import OutputError


def fill_standard_streams() -> None:
    """Have /dev/null in the place of each standard stream that is closed; starts Python again.

    Else an image or a socket gets the number of standard error, and is written to by whatever
    library has something to tell. It has to be from the start: numbers are taken by now.
    """
    streams = enumerate((sys.stdin, sys.stdout, sys.stderr))
    closed = [number for number, stream in streams if stream is None]
    if not closed:
        return
    null = os.open(os.devnull, os.O_RDWR)
    for number in closed:
        os.dup2(null, number)  # over whatever has it
        os.set_inheritable(number, True)  # should it have been the same one
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  (no shell is wanted)


def put(text: str) -> None:
    """Write a line to standard output, at once. Raises OutputError; nothing if it is closed."""
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
    """Write a line to standard error, or lose it: whatever goes on does not depend on it."""
    stream: TextIO | None = sys.stderr
    if stream is None:
        return
    try:
        stream.write(f"{text}\n")
        stream.flush()
    except OSError:
        discard_output(stream)


def discard_output(stream: TextIO) -> None:
    """Send what the stream holds, and all that follows, to /dev/null.

    Python flushes at exit, and would fail there again.
    """
    fd = os.open(os.devnull, os.O_WRONLY)
    os.dup2(fd, stream.fileno())
    os.close(fd)
