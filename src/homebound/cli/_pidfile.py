"""A file with the process ID, for scripts that stop the server."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ._errors import ServeError

if TYPE_CHECKING:
    from collections.abc import Iterator


_LONGEST = 32  # bytes of a process ID, with white space around it


@contextmanager
def pidfile(path: str) -> Iterator[None]:
    """Write the file atomically; remove it at the end, if it is still this process's.

    Raises ServeError if it cannot be written, or is a file of another kind.
    """
    target = Path(path)
    text = f"{os.getpid()}\n"
    fresh = Path(f"{path}.{os.getpid()}")
    try:
        if not _is_free(target):
            words = "it exists and is no pidfile; it would be replaced and then removed"
            raise ServeError(f"cannot write the pidfile {path!r}: {words}")
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


def _is_free(path: Path) -> bool:
    """Return whether nothing is lost with what is there: nothing, an empty file, a process ID.

    Not an image, and not a device: root could replace /dev/null or, a link, /dev/stdout.
    """
    if not path.exists():
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        found = file.read(_LONGEST + 1)
    return len(found) <= _LONGEST and (not found.strip() or found.strip().isdigit())
