"""Disks by name: a path, memory:SIZE, overlay:PATH, a script, an NBD URI.

The module of each kind but files is loaded when such a disk is opened.
"""

from __future__ import annotations

import asyncio
import errno
import importlib
import os
from functools import partial
from typing import TYPE_CHECKING, Any

from ._errors import DiskError, ImageError
from ._file import FileDisk
from ._names import MEMORY, OVERLAY, SCRIPT, is_path, is_uri, parse_size
from ._probe import QCOW2, RAW, begins_as_overlay, probe
from ._to_end import to_end

if TYPE_CHECKING:
    from ._disk import Disk


async def open_disk(spec: str | os.PathLike[str], *, read_only: bool = False) -> Disk:
    """Open the disk that `spec` names; close it in the end.

    - `memory:SIZE`: a new disk in memory, `memory:64M`.
    - `overlay:PATH`: the overlay in that file, on the base that the file names, which is opened
      read-only and closed with it. Only what is asked for so is opened as an overlay: a guest that
      could write one's header into a raw image would else have any file opened.
    - An NBD URI: the export of a server, as an `NBDDisk`. Connecting is tried once.
    - `PATH.py`: a Python script, which is run (see docs/serve.md), or an nbdkit plugin.
    - Anything else is the path of an image: qcow2 by its first bytes, which makes a disk that can
      only be read, or else raw. One with the sign of another format is refused, for its bytes are
      no disk's. A qcow2 image that names a backing file is refused too, as a guest can write such
      bytes into a raw image and would have any file opened; make a `Qcow2Disk`.

    All are opened in a worker. Raises DiskError if there is no such disk, or none of that kind.

    >>> import homebound
    >>> from homebound.block import open_disk
    >>> homebound.run(open_disk("memory:1M"))
    <MemoryDisk of 1048576 bytes>

    Called from: task.
    """
    name = os.fspath(spec)
    if is_uri(name):
        return await _connect(name, read_only=read_only)
    opened: list[Disk] = []
    try:
        await to_end(partial(_open_into, opened, name, read_only=read_only))
    except asyncio.CancelledError:
        for disk in opened:
            disk.close()
        raise
    return opened[0]


async def _connect(uri: str, *, read_only: bool) -> Disk:
    """Connect to an export. NBD is a room above this one, so its client is loaded by name."""
    nbd: Any = importlib.import_module("homebound.nbd")
    try:
        disk: Disk = await nbd.NBDDisk.connect(uri, read_only=read_only)
    except ValueError as error:
        raise ImageError(errno.EINVAL, str(error)) from error
    return disk


def _open_into(opened: list[Disk], spec: str, *, read_only: bool) -> None:
    opened.append(_open(spec, read_only=read_only))


def open_prefixed(spec: str, *, read_only: bool) -> Disk:
    """Open `memory:SIZE` or `overlay:PATH`. Blocks. Raises DiskError."""
    if spec.startswith(MEMORY):
        from ._memory import MemoryDisk  # noqa: PLC0415  (see above)

        return MemoryDisk(_size(spec), read_only=read_only)
    return _open_overlay(spec.removeprefix(OVERLAY), read_only=read_only)


def _open(spec: str, *, read_only: bool) -> Disk:
    if not is_path(spec):
        return open_prefixed(spec, read_only=read_only)
    if spec.endswith(SCRIPT):
        return _open_script(spec, read_only=read_only)
    if _format_of(spec) == QCOW2:
        from ._qcow2.disk import Qcow2Disk  # noqa: PLC0415  (see above)

        return Qcow2Disk(spec, backing=False)
    return FileDisk(spec, read_only=read_only)


def _open_script(path: str, *, read_only: bool) -> Disk:
    from ._scripts.open import open_script_disk  # noqa: PLC0415  (see above)

    try:
        return open_script_disk(path, read_only=read_only)
    except DiskError:
        raise
    except OSError as error:
        raise _refusal(path, error.strerror or "it cannot be read", error.errno) from error


def _format_of(path: str) -> str:
    try:
        found, is_overlay = probe(path), begins_as_overlay(path)
    except OSError:
        return RAW  # opening it tells what is wrong, if anything but its beginning is
    if is_overlay:
        raise _refusal(path, f"it is an overlay; open it as {OVERLAY}{path}")
    if found not in (RAW, QCOW2):
        text = f"it is a {found} image, which is not read; convert it (qemu-img convert -O raw)"
        raise _refusal(path, text)
    return found


def _open_overlay(path: str, *, read_only: bool) -> Disk:
    from ._overlay import OverlayDisk  # noqa: PLC0415  (see above)
    from ._overlay_file import base_path_of  # noqa: PLC0415

    try:
        base_path = base_path_of(path)
    except DiskError:
        raise
    except OSError as error:
        raise _refusal(path, error.strerror or "it cannot be read", error.errno) from error
    if base_path is None:
        raise _refusal(path, "it is not an overlay: its header does not say so")
    if not base_path:
        raise _refusal(path, "its base is no file; make an OverlayDisk with the base")
    base = _open_base(base_path)
    try:
        disk = OverlayDisk(base, path, read_only=read_only)
    except BaseException:
        base.close()
        raise
    disk._owned = base
    return disk


def _open_base(path: str) -> Disk:
    """Open an overlay's base, which may be another overlay: it was named then, not guessed."""
    try:
        is_overlay = begins_as_overlay(path)
    except OSError:
        is_overlay = False  # opening it tells what is wrong
    if is_overlay:
        return _open_overlay(path, read_only=True)
    if _sign_of(path) == QCOW2:  # the overlay's file does not say which of the two it was
        text = "it is qcow2; make an OverlayDisk with its bytes (FileDisk) or its disk (Qcow2Disk)"
        raise _refusal(path, text)
    return FileDisk(path, read_only=True)


def _sign_of(path: str) -> str:
    try:
        return probe(path)
    except OSError:
        return RAW  # opening it tells what is wrong


def _size(spec: str) -> int:
    try:
        return parse_size(spec.removeprefix(MEMORY))
    except ValueError as error:
        raise _refusal(spec, str(error)) from error


def _refusal(spec: str, text: str, number: int | None = errno.EINVAL) -> ImageError:
    return ImageError(number or errno.EINVAL, f"cannot open {spec!r}: {text}")
