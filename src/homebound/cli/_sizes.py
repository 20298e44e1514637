"""Sizes as people read them, 1.5 KiB, and times in seconds."""

from __future__ import annotations

from ..block._names import UNITS

_STEP = 1024
_LONGEST = 1e9  # seconds


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
    for unit in ("B", *(f"{letter}iB" for letter in UNITS)):
        if size < _STEP or unit == "EiB":
            break
        size /= _STEP
    return f"{size:.0f} {unit}" if unit == "B" or size == int(size) else f"{size:.1f} {unit}"
