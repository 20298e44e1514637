"""Failures of a script, as one line: the file, the line in it, and what was wrong."""

from __future__ import annotations

import errno
import traceback
from typing import TYPE_CHECKING

from .._errors import DiskError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any


class ScriptError(DiskError):
    """A script failed, or returned what it must not; the text says where. `errno` is for clients.

    The exception that the script raised, if it did, is the `__cause__`.
    """

    # Failures of one kind need to be logged only once.
    kind: object = None


def failure_in(path: str, error: BaseException, number: int | None = None) -> ScriptError:
    """Make the error for an exception that a script has raised; `number` is the errno, if known."""
    line, function = _place_of(path, error)
    text = " ".join(str(error).split())
    if isinstance(error, SyntaxError) and error.filename == path:
        line, text = error.lineno, error.msg
    where = path if line is None else f"{path}, line {line}"
    if function is not None and line is not None:
        where = f"{where}, in {function}"
    name = type(error).__name__
    what = f"{name}: {text}" if text else name
    if number is None:
        own = error.errno if isinstance(error, OSError) else None
        number = own if isinstance(own, int) and own > 0 else errno.EIO
    made = ScriptError(number, f"{where}: {what}")
    made.kind = (path, line, name, number)
    made.__cause__ = error
    return made


def wrong(path: str, function: Any, text: str) -> ScriptError:
    """Make the error for a function that returned something wrong, or that is missing (None)."""
    code = getattr(function, "__code__", None)
    where = path if code is None else f"{path}, line {code.co_firstlineno}"
    made = ScriptError(errno.EIO, f"{where}: {text}")
    made.kind = (path, where)
    return made


def _place_of(path: str, error: BaseException) -> tuple[int | None, str | None]:
    """Return the line and the function of the script that the exception came through last."""
    trace: TracebackType | None = error.__traceback__
    found: tuple[int | None, str | None] = (None, None)
    for frame, line in traceback.walk_tb(trace):
        if frame.f_code.co_filename == path:
            name = frame.f_code.co_name
            found = (line, None if name == "<module>" else name)
    return found
