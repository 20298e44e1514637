"""Disks as the command line names them."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from ..block import FileDisk, ImageError, ImageLocked, MemoryDisk
from ..block._probe import RAW, probe
from ._sizes import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..block import Disk

AUTO = "auto"
# What opens an image of each format that can be read.
_READERS: dict[str, Callable[..., Disk]] = {RAW: FileDisk}
FORMATS = (AUTO, *_READERS)
MEMORY = "memory:"
_LONGEST_OPENING = 3.0  # seconds from the signal; nothing is served yet


def check_spec(spec: str) -> str:
    """The name of a disk, as it is. Raises ValueError if it can be none."""
    if not spec:
        raise ValueError("it is empty")
    if spec.startswith(MEMORY):
        parse_size(spec.removeprefix(MEMORY))
    return spec


class Opener:
    """Opens disks the way that the options say."""

    def __init__(self, image_format: str, *, read_only: bool, lock: bool) -> None:
        self._format = image_format
        self._read_only = read_only
        self._lock = lock
        self._opening = ""  # read by another thread

    def open(self, spec: str) -> Disk:
        """Open what `spec`, which has been checked, names: `memory:SIZE`, or an image by its path.

        Raises DiskError.
        """
        if spec.startswith(MEMORY):
            return MemoryDisk(parse_size(spec.removeprefix(MEMORY)), read_only=self._read_only)
        self._opening = spec
        name = _format_of(spec) if self._format == AUTO else self._format
        if name not in _READERS:
            raise _not_read(spec, name)
        try:
            return _READERS[name](spec, read_only=self._read_only, lock=self._lock)
        except ImageLocked as error:
            advice = "--read-only shares it, --no-lock opens it anyway"
            raise ImageLocked(error.errno, f"{error}; {advice}") from error

    def overdue(self, seconds: float) -> str | None:
        """Say why the program does not end so long after a signal, while it opens disks."""
        late = seconds > _LONGEST_OPENING
        return f"opening {self._opening!r} has not ended" if late else None


def _format_of(path: str) -> str:
    try:
        return probe(path)
    except OSError:
        return RAW  # opening it as that tells what is wrong, if anything but its beginning is


def _not_read(path: str, name: str) -> ImageError:
    """Say that the format has no reader: as a raw disk, the first write would destroy the image."""
    return ImageError(
        errno.EINVAL,
        f"cannot open image {path!r}: it is a {name} image, which is not read; convert it "
        "(qemu-img convert -O raw), or serve its bytes as they are: --format raw",
    )


def label_of(spec: str) -> str:
    """The name for people: as it was given, or as Python writes it if it is no text."""
    if spec.startswith(MEMORY):
        return "memory"
    return spec if spec.isprintable() else repr(spec)
