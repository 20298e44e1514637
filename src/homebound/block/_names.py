"""The forms of disks' names: `memory:SIZE`, `overlay:PATH`, NBD URIs; and sizes in them."""

from __future__ import annotations

import re

MEMORY, OVERLAY, SCRIPT = "memory:", "overlay:", ".py"
UNITS = "KMGTPE"
_URI = re.compile(r"nbds?(\+\w+)?:", re.IGNORECASE)
_SIZE = re.compile(r"(\d{1,30}(?:\.\d{1,30})?)\s*(?:([KMGTPE])(?:iB?|B)?|B)?", re.IGNORECASE)
_STEP = 1024
_LARGEST = (1 << 63) - 1  # the largest file offset, and NBD's


def is_uri(name: str) -> bool:
    """Return whether `name` is an NBD URI, of the right form or not.

    >>> from homebound.block._names import is_uri
    >>> is_uri("nbd+unix:///?socket=/run/nbd"), is_uri("disk.img")
    (True, False)
    """
    return _URI.match(name) is not None


def is_path(name: str) -> bool:
    """Return whether `name` is the path of a file: an image or a script."""
    return not name.startswith((MEMORY, OVERLAY)) and not is_uri(name)


def parse_size(text: str) -> int:
    """Parse a number with an optional unit, powers of 1024, to bytes. Raises ValueError.

    >>> from homebound.block._names import parse_size
    >>> parse_size("1.5K")
    1536
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size; write a number and perhaps K, M, G or T: 1G")
    number, unit = match.groups()
    factor = _STEP ** (UNITS.index(unit.upper()) + 1) if unit else 1
    size = float(number) * factor if "." in number else int(number) * factor
    if size < 1 or size != int(size):
        raise ValueError(f"{text!r} is {size:g} bytes; a disk has a whole number, at least 1")
    if size > _LARGEST:
        raise ValueError(f"{text!r} is {size:g} bytes; a disk has less than 8E")
    return int(size)
