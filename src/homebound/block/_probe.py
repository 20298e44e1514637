"""The format of an image, told by its first bytes: the names are QEMU's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

OVERLAY_SIGN: Final = b"homebound overlay\n"  # the first bytes of an overlay's file
RAW: Final = "raw"
QCOW2: Final = "qcow2"

_LOOK_AT = 512  # bytes

# (format, offset, what stands there)
_SIGNS = (
    (QCOW2, 0, b"QFI\xfb\0\0\0\x02"),
    (QCOW2, 0, b"QFI\xfb\0\0\0\x03"),
    ("qcow", 0, b"QFI\xfb"),
    ("qed", 0, b"QED\0"),
    ("vmdk", 0, b"KDMV"),
    ("vmdk", 0, b"COWD"),
    ("vmdk", 0, b"# Disk DescriptorFile"),
    ("vhdx", 0, b"vhdxfile"),
    ("vpc", 0, b"conectix"),
    ("vdi", 0x40, b"\x7f\x10\xda\xbe"),
    ("parallels", 0, b"WithoutFreeSpace"),
    ("parallels", 0, b"WithouFreSpacExt"),
)


def probe(path: str | os.PathLike[str]) -> str:
    """Return the format of the image at `path`, `raw` if it has no sign of another.

    A raw image may have such a sign too: its user, a guest for instance, can write one there. So a
    format that was guessed must give that user no more than raw bytes would: no access to another
    file that the image names, such as a backing file. Raises OSError if it cannot be read.

    Called from: any thread.
    """
    head = _beginning(path)
    for name, offset, sign in _SIGNS:
        if head.startswith(sign, offset):
            return name
    return RAW


def begins_as_overlay(path: str | os.PathLike[str]) -> bool:
    """Return whether a file begins as an overlay's does. Raises OSError if it cannot be read.

    Called from: any thread.
    """
    return _beginning(path).startswith(OVERLAY_SIGN)


def _beginning(path: str | os.PathLike[str]) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return os.pread(fd, _LOOK_AT, 0)
    finally:
        os.close(fd)
