"""`homebound info --map`: the extents of a disk in one metadata context."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ._remote import DIRTY_BITMAP
from ._stdio import put

if TYPE_CHECKING:
    from collections.abc import AsyncIterable

ALLOCATION = "base:allocation"
DEPTH = "qemu:allocation-depth"
_SPAN = 1 << 30  # bytes that are asked for at once

_ALLOCATION_WORDS = ("data", "hole", "zero", "hole,zero")
_DIRTY_WORDS = ("clean", "dirty")
_DEPTH_WORDS = ("unallocated", "local")


def describe(context: str, flags: int) -> str | None:
    """Return nbdinfo's words for the flags of an extent, None if it has none.

    >>> from homebound.cli._map import describe
    >>> describe("base:allocation", 3), describe("qemu:dirty-bitmap:b0", 1)
    ('hole,zero', 'dirty')
    """
    words: tuple[str, ...] = ()
    if context == ALLOCATION:
        words = _ALLOCATION_WORDS
    elif context.startswith(DIRTY_BITMAP):
        words = _DIRTY_WORDS
    elif context == DEPTH:
        words = _DEPTH_WORDS
        if flags >= len(words):
            return f"backing depth {flags}"
    return words[flags] if flags < len(words) else None


def spans(size: int) -> list[tuple[int, int]]:
    """Return the ranges that are asked for one after the other: (offset, length)."""
    return [(start, min(_SPAN, size - start)) for start in range(0, size, _SPAN)]


async def put_map(context: str, extents: AsyncIterable[tuple[int, int]], *, as_json: bool) -> None:
    """Write the extents, (length, flags), with equal neighbours joined. Raises OutputError."""
    separator = "["
    offset = 0
    async for length, flags in _joined(extents):
        words = describe(context, flags)
        if as_json:
            entry: dict[str, int | str] = {"offset": offset, "length": length, "type": flags}
            if words is not None:
                entry["description"] = words
            put(f"{separator} {json.dumps(entry)}")
            separator = ","
        else:
            put(f"{offset:10} {length:11} {flags:4}  {words or ''}".rstrip())
        offset += length
    if as_json:
        put("]" if offset else "[]")


async def put_totals(
    context: str, extents: AsyncIterable[tuple[int, int]], *, as_json: bool
) -> None:
    """Write how many bytes have each flags, as `nbdinfo --map --totals`. Raises OutputError."""
    totals: dict[int, int] = {}
    async for length, flags in extents:
        totals[flags] = totals.get(flags, 0) + length
    size = sum(totals.values())
    entries = []
    for flags, total in sorted(totals.items()):
        words, percent = describe(context, flags), 100 * total / size
        entry = {"size": total, "percent": percent, "type": flags}
        entries.append(entry if words is None else {**entry, "description": words})
        if not as_json:
            put(f"{total:10} {percent:5.1f}% {flags:3} {words or ''}".rstrip())
    if as_json:
        put(json.dumps(entries, indent=2))


async def _joined(extents: AsyncIterable[tuple[int, int]]) -> AsyncIterable[tuple[int, int]]:
    total, last = 0, 0
    async for length, flags in extents:
        if total and flags != last:
            yield total, last
            total = 0
        total, last = total + length, flags
    if total:
        yield total, last
