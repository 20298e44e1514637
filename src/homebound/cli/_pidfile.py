"""A file with the process ID, for scripts that stop the server."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ._errors import ServeError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def pidfile(path: str) -> Iterator[None]:
    """Write the file atomically; remove it at the end, if it is still this process's.

    Raises ServeError if it cannot be written.
    """
    target = Path(path)
    text = f"{os.getpid()}\n"
    fresh = Path(f"{path}.{os.getpid()}")
    try:
        fresh.write_text(text)
        fresh.replace(target)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise ServeError(f"cannot write the pidfile {path!r}: {error.strerror}") from error
    try:
        yield
    finally:
        try:
            if target.read_text() == text:
                target.unlink()
        except OSError:
            pass  # it has been removed
