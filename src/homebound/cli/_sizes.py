"""Sizes as people write them: 512, 64K, 1.5G, 1Gi, 2TiB; and times in seconds."""

from __future__ import annotations

import re

_UNITS = "KMGTPE"
_SIZE = re.compile(r"(\d{1,30}(?:\.\d{1,30})?)\s*(?:([KMGTPE])(?:iB?|B)?|B)?", re.IGNORECASE)
_STEP = 1024
_LONGEST = 1e9  # seconds
_LARGEST = (1 << 63) - 1  # the largest file offset, and NBD's


def parse_size(text: str) -> int:
    """Parse a number with an optional unit, powers of 1024, to bytes. Raises ValueError.

    >>> from homebound.cli._sizes import parse_size
    >>> parse_size("1.5K")
    1536
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size; write a number and perhaps K, M, G or T: 1G")
    number, unit = match.groups()
    factor = _STEP ** (_UNITS.index(unit.upper()) + 1) if unit else 1
    size = float(number) * factor if "." in number else int(number) * factor
    if size < 1 or size != int(size):
        raise ValueError(f"{text!r} is {size:g} bytes; a disk has a whole number, at least 1")
    if size > _LARGEST:
        raise ValueError(f"{text!r} is {size:g} bytes; a disk has less than 8E")
    return int(size)


def parse_seconds(text: str) -> float:
    """Parse a time in seconds, 0 or more. Raises ValueError.

    >>> from homebound.cli._sizes import parse_seconds
    >>> parse_seconds("1.5")
    1.5
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _LONGEST:
        raise ValueError(f"{text!r} is not a time; write a number of seconds, 0 or more")
    return seconds


def show_size(size: float) -> str:
    """Format a size for people, with one decimal unless it is exact.

    >>> from homebound.cli._sizes import show_size
    >>> show_size(1536)
    '1.5 KiB'
    """
    for unit in ("B", *(f"{letter}iB" for letter in _UNITS)):
        if size < _STEP or unit == "EiB":
            break
        size /= _STEP
    return f"{size:.0f} {unit}" if unit == "B" or size == int(size) else f"{size:.1f} {unit}"
