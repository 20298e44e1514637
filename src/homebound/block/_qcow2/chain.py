"""Opening an image and the backing files below it. It blocks."""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING, Final

from .._errors import ImageError
from .._rawfile import RawFile
from .header import LEAST, Refused, cluster_size_of, parse_header
from .layers import ImageLayer, RawLayer
from .tables import Tables

if TYPE_CHECKING:
    from .header import Header
    from .layers import Layer

LONGEST: Final = 64  # files in a chain
_PROTOCOL = re.compile(r"[^/:]+:")
_FILE = "file:"
_RAW, _QCOW2 = "raw", "qcow2"
_LONGEST_KIND = 32  # characters that a message has of what the header names


class Chain:
    """The open images of one disk: `top`, and whatever it stands on."""

    def __init__(self, path: str, *, backing: bool, lock: bool) -> None:
        self._backing = backing
        self._lock = lock
        self._tables = Tables()
        self._opened: list[RawFile] = []
        try:
            self.header: Header
            self.top: ImageLayer
            self.header, self.top = self._open(path)
        except BaseException:
            for file in self._opened:
                file.close()
            raise

    def _open(self, path: str) -> tuple[Header, ImageLayer]:
        try:
            number = len(self._opened)
            file = self._open_file(path)
            header = read_header(file)
            below = self._open_below(path, header)
            return header, ImageLayer(header, file, self._tables, number, below)
        except Refused as refusal:
            text = f"cannot open image {path!r}: {refusal}"
            raise ImageError(refusal.number, text) from None

    def _open_file(self, path: str) -> RawFile:
        if len(self._opened) >= LONGEST:
            raise Refused(f"it is one of a chain of more than {LONGEST} backing files")
        file = RawFile(path, read_only=True, lock=self._lock, unchanging=True)
        seen = {_identity(each) for each in self._opened}
        self._opened.append(file)
        if _identity(file) in seen:
            raise Refused("it is its own backing file, by way of others perhaps", errno.ELOOP)
        return file

    def _open_below(self, path: str, header: Header) -> Layer | None:
        name, kind = header.backing_name, header.backing_format
        if name is None:
            return None
        below = backing_path(path, name)
        if not self._backing:
            text = (
                f"it names a backing file, {below!r}, which is followed only if it is asked for as "
                "qcow2: Qcow2Disk(path), homebound serve --format qcow2, or homebound copy "
                "--source-format qcow2"
            )
            raise Refused(text)
        if kind is None:
            text = (
                f"it names no format for its backing file {below!r}, and guessing would not be "
                f"safe; qemu-img rebase -u -b FILE -F raw|qcow2 notes one"
            )
            raise Refused(text)
        if kind == _QCOW2:
            return self._open(below)[1]
        if kind == _RAW:
            return RawLayer(self._open_file(below))
        text = f"its backing file is a {kind[:_LONGEST_KIND]!r} image; raw and qcow2 can be read"
        raise Refused(text, errno.ENOTSUP)


def read_header(file: RawFile) -> Header:
    """Return the header of an open image. Raises Refused."""
    start = _read_start(file, LEAST)
    return parse_header(_read_start(file, cluster_size_of(start)), file.size)


def _read_start(file: RawFile, length: int) -> bytes:
    data = bytearray(min(length, file.size))
    file.read_into(0, memoryview(data))
    return bytes(data)


def backing_path(path: str, name: bytes) -> str:
    """Return the path of a backing file: from the directory of the image. Raises Refused."""
    text = os.fsdecode(name)
    if "\0" in text:
        raise Refused("it is damaged: there is a NUL in the name of its backing file")
    if text.startswith(_FILE):
        text = text.removeprefix(_FILE)
    elif _PROTOCOL.match(text):
        raise Refused(f"its backing file {text!r} is no local file", errno.ENOTSUP)
    return os.path.join(os.path.dirname(path), text)  # noqa: PTH118, PTH120  (a str)


def _identity(file: RawFile) -> tuple[int, int]:
    found = os.fstat(file.fd)
    return found.st_dev, found.st_ino
