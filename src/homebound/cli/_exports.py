"""The exports by name: IMAGE, `--export NAME=SPEC`, the files of `--dir DIR`."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..block import DiskError, FileDisk, ImageError
from ._announce import NamedDisk
from ._disks import MEMORY, check_spec, label_of
from ._errors import ServeError
from ._stdio import tell

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import ExitStack

    from ..block import Disk
    from ._disks import Opener


def split_export(text: str) -> tuple[str, str]:
    """Return the name and the disk of `NAME=SPEC`. Raises ValueError.

    >>> from homebound.cli._exports import split_export
    >>> split_export("root=/images/root=1.img")
    ('root', '/images/root=1.img')
    """
    name, _, spec = text.partition("=")
    if not spec:
        raise ValueError(f"{text!r} is not an export; write NAME=IMAGE or NAME={MEMORY}SIZE")
    return name, check_spec(spec)


def open_exports(
    named: Iterable[tuple[str, str]],
    directory: str | None,
    opener: Opener,
    disks: ExitStack,
    *,
    round_size: int,
) -> list[NamedDisk]:
    """Open the disks of all exports; the stack `disks` closes them.

    Raises DiskError, ServeError, UsageError, and OSError if the directory cannot be read.
    """
    exports = [
        NamedDisk(name, label_of(spec), disks.enter_context(opener.open(spec)))
        for name, spec in named
    ]
    if directory is not None:
        exports += _open_directory(directory, opener, disks)
    exports = [replace(export, round_size=round_size) for export in exports]
    names = [export.name for export in exports]
    for name in names:
        if names.count(name) > 1:
            raise click.UsageError(f"two exports are named {name!r}")
    return exports


def _open_directory(directory: str, opener: Opener, disks: ExitStack) -> list[NamedDisk]:
    """Open the images of a directory; one that cannot be served is left out, with a message."""
    where = _place_of(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), close=True)
    exports = []
    for name in _names_in(directory):
        path = os.path.join(directory, name)  # noqa: PTH118  (a Path would drop a leading "./")
        try:
            name.encode()
            disk = _open_inside(where, path, opener)
        except UnicodeEncodeError:
            tell(f"homebound: {path!r} is left out: its name is not UTF-8")
        except DiskError as error:
            tell(f"homebound: {path!r} is left out: {error}")
        else:
            exports.append(NamedDisk(name, label_of(path), disks.enter_context(disk)))
    if not exports:
        raise ServeError(f"there is no image to serve in {directory!r}")
    return exports


def _names_in(directory: str) -> list[str]:
    """Return the names of the files that are neither hidden nor directories, sorted."""
    return sorted(
        name
        for name in os.listdir(directory)  # noqa: PTH208  (names, not paths, are wanted)
        if not name.startswith(".") and not os.path.isdir(f"{directory}/{name}")  # noqa: PTH112
    )


def _open_inside(where: Path, path: str, opener: Opener) -> Disk:
    """Open the image if it is inside the directory, after following symbolic links.

    The path is checked first, as opening some devices has side effects, and then the place of the
    opened file, as a link may have been changed in between.
    """
    if where not in Path(os.path.realpath(path)).parents:
        raise _leads_out()
    disk = opener.open(path)
    if isinstance(disk, FileDisk) and where not in _place_of(disk.blocking.fd).parents:
        disk.close()
        raise _leads_out()
    return disk


def _leads_out() -> ImageError:
    return ImageError(errno.EPERM, "it is a symbolic link that leads out of the directory")


def _place_of(fd: int, *, close: bool = False) -> Path:
    try:
        return Path(f"/proc/self/fd/{fd}").readlink()
    finally:
        if close:
            os.close(fd)
