"""The disks that copy, info and bench name: files, URIs, and whatever else `open_disk` opens."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..block import DiskError, ImageError, open_disk
from ..block._locks import lock_image
from ..block._names import OVERLAY, SCRIPT, is_path, is_uri
from ..block._probe import RAW, probe
from ..block._to_end import to_end
from ._disks import Opener, check_spec
from ._errors import CommandError
from ._remote import Link, check_uri

if TYPE_CHECKING:
    from ..block import Disk

STREAM = "-"
_ONCE = Link()


def check_place(spec: str) -> str:
    """Return `spec` unchanged. Raises ValueError if it cannot name a disk."""
    return check_uri(spec) if is_uri(spec) else check_spec(spec)


def check_disk(spec: str) -> str:
    """Return `spec` unchanged. Raises ValueError if it cannot name a disk, or is a stream."""
    if spec == STREAM:
        text = f"{STREAM!r} is a stream, not a disk; store it first: homebound copy {STREAM} IMAGE"
        raise ValueError(text)
    return check_place(spec)


def is_plain_file(spec: str) -> bool:
    """Return whether `spec` is the path of a regular file, or of nothing yet."""
    if not is_path(spec):
        return False
    try:
        mode = os.stat(spec).st_mode  # noqa: PTH116  (a Path would not keep bytes)
    except FileNotFoundError:
        return True
    except OSError:
        return False  # opening it tells what is wrong
    return stat.S_ISREG(mode) and not spec.endswith(SCRIPT)


async def open_place(
    spec: str, *, read_only: bool, link: Link = _ONCE, meta: tuple[str, ...] = ()
) -> Disk:
    """Open the disk that `spec` names. Raises DiskError or NBDError."""
    if not is_uri(spec):
        return await open_disk(spec, read_only=read_only)
    return await link.connect(spec, meta=meta, read_only=read_only)


async def open_image(path: str, image_format: str) -> Disk:
    """Open an image of a format that the user has named, to read it. Raises DiskError."""
    opened: list[Disk] = []
    opener = Opener(image_format, read_only=True, lock=True)
    try:
        await to_end(lambda: opened.append(opener.open(path)))
    except asyncio.CancelledError:
        for disk in opened:
            disk.close()
        raise
    return opened[0]


async def make_file(path: str, size: int, source: str) -> None:
    """Give the file at `path` this size; it reads as zeroes then. `source` must be another file.

    Raises CommandError, ImageLocked if it is in use, and ImageError if that fails.
    """
    await to_end(partial(_make_file, path, size, source))


def check_different(source: str, target: str) -> None:
    """Raise CommandError if both are one file."""
    try:
        same = Path(source).samefile(target)
    except (OSError, ValueError):
        return
    if same:
        raise CommandError(f"SRC and DST are the same file, {target!r}")


def check_replaced(path: str) -> None:
    """Raise CommandError if a copy would replace an image of another format by a raw one."""
    try:
        found = probe(path)
    except OSError:
        return  # there is none, or opening it tells what is wrong
    if found != RAW:
        raise CommandError(
            f"DST {path!r} is a {found} image, and would become a raw one; "
            "write to another file, or replace it: --format raw"
        )


def _make_file(path: str, size: int, source: str) -> None:
    check_different(source, path)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
        try:
            lock_image(fd, path, read_only=False)
            os.ftruncate(fd, 0)
            os.ftruncate(fd, size)
        finally:
            os.close(fd)
    except DiskError:
        raise
    except OSError as error:
        raise not_created(path, error) from error


def not_created(path: str, error: OSError) -> ImageError:
    """Return the error for a file that cannot be made."""
    words = error.strerror or str(error)
    directory = os.path.dirname(path)  # noqa: PTH120  (a Path would not keep bytes)
    if error.errno == errno.ENOENT and not os.path.isdir(directory):  # noqa: PTH112
        words = f"there is no directory {directory!r}: {words}"
    return ImageError(error.errno or errno.EIO, f"cannot create {path!r}: {words}")


def identity(spec: str, disk: Disk, *, changes: bool) -> dict[str, Any]:
    """Return what tells this disk from another one; `changes` says that the copy writes to it.

    A file is told by its place and its number; one that is not to change, by its time too.
    """
    about: dict[str, Any] = {"size": disk.size}
    if is_uri(spec):
        return {**about, "uri": spec}
    path = os.path.realpath(spec.removeprefix(OVERLAY))
    try:
        status = os.stat(path)  # noqa: PTH116  (it is a string from realpath)
    except OSError:
        return {**about, "name": spec}
    from ..block import Qcow2Disk  # noqa: PLC0415  (for --resume only)

    about |= {"path": path, "inode": status.st_ino}
    if isinstance(disk, Qcow2Disk) and len(disk.paths) > 1:
        about["backing"] = [[each, os.stat(each).st_mtime_ns] for each in disk.paths[1:]]  # noqa: PTH116
    return about if changes else {**about, "mtime_ns": status.st_mtime_ns}
