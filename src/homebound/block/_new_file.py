"""A new file that appears whole or not at all, also if the machine stops in the middle."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# What a file system says that has no hard links.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def make_file(path: str, fill: Callable[[int], None]) -> None:
    """Have `fill` write a file under another name, sync it, then give it its name. Blocks.

    Raises FileExistsError if there is one, OSError if anything fails; then nothing is left.
    """
    name = Path(path)
    draft = name.with_name(f".{name.name}.{secrets.token_hex(6)}")
    fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        try:
            fill(fd)
            os.fsync(fd)
        finally:
            os.close(fd)
        _name(draft, name)
    finally:
        draft.unlink(missing_ok=True)
    sync_directory(name.parent)


def _name(draft: Path, path: Path) -> None:
    """Link, which fails if the name is taken; a rename would replace another process's file."""
    try:
        os.link(draft, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        draft.rename(path)


def sync_directory(directory: Path) -> None:
    """Have the names in it on stable storage, where that can be asked for."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems
            raise
    finally:
        os.close(fd)
