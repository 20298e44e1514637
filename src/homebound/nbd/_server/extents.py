"""Requests about how a disk is stored: BLOCK_STATUS, and READs that leave zeroes out.

Awaited: a disk in front of a file asks the kernel in a worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._protocol.transmission import (
    EXTENT_SIZE,
    MAX_EXTENTS,
    STATUS_SIZE,
    pack_status_into,
    status_room,
)
from .._protocol.wire import STATE_HOLE, STATE_ZERO, CommandFlag

if TYPE_CHECKING:
    from ...block._disk import Disk
    from ...block._extent import Extent
    from .slow import Replies, SlowRequest

# A client may ask about 4 GiB, in which a file may have a million extents. So the disk is asked
# about a little at first, then about more as long as it answers with few extents, and about less
# when it answers with many.
_FIRST = 1 << 20  # bytes
_GROWTH = 8
_FEW, _MANY = 64, 512  # extents
_MOST = 256 << 20  # bytes
GRAIN = 64 << 10  # bytes; zeroes of this length are left out of a READ's data


class Step:
    """How many bytes a disk is asked about at once.

    All requests to the disk share it: a client that asks for one range after the other has the
    disk asked once for each, not several times, each a hand-over to a worker. Any thread may write
    it: it is a hint, and a lost update costs a question.
    """

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = _FIRST

    def adapt(self, length: int, extents: int) -> None:
        """Ask about more or less the next time, as `length` bytes had so many extents."""
        if extents <= _FEW:
            self.bytes = min(self.bytes * _GROWTH, _MOST)
        elif extents > _MANY:
            self.bytes = max(length * _FEW // extents, _FIRST)


async def status_of(disk: Disk, request: SlowRequest) -> list[tuple[int, int]]:
    """Return lengths and states, at least one: of the whole range, or as many as a reply has."""
    room = (status_room(request.length) - STATUS_SIZE) // EXTENT_SIZE
    most = 1 if request.flags & CommandFlag.REQ_ONE else min(room, MAX_EXTENTS)
    found: list[tuple[int, int]] = []
    at, end = request.offset, request.offset + request.length
    step: Step = vars(disk).setdefault("_nbd_step", Step())  # atomic, as in ranges_of
    while at < end:
        length = min(step.bytes, end - at)
        extents = await _extents(disk, at, length)
        step.adapt(length, len(extents))
        for extent in extents:
            state = _state(extent)
            if found and found[-1][1] == state:
                found[-1] = (found[-1][0] + extent.length, state)
            elif len(found) == most:
                return found
            else:
                found.append((extent.length, state))
        at += length
    return found


async def _extents(disk: Disk, offset: int, length: int) -> list[Extent]:
    """Ask a disk. Raises ValueError if a user's disk does not tell of exactly the range."""
    extents = await disk.block_status(offset, length)
    told = sum(extent.length for extent in extents)
    if told != length or any(extent.length < 0 for extent in extents):
        text = f"block_status({offset}, {length}) tells of {told} bytes, not of {length}"
        raise ValueError(text)
    return extents


def pack_hole_status_into(out: memoryview, at: int, cookie: int, length: int) -> int:
    """Pack the reply to a BLOCK_STATUS of a range that is one hole."""
    return pack_status_into(out, at, cookie, ((length, STATE_HOLE | STATE_ZERO),))


def _state(extent: Extent) -> int:
    return (STATE_HOLE if extent.hole else 0) | (STATE_ZERO if extent.zero else 0)


async def read_parts(disk: Disk, request: SlowRequest, replies: Replies) -> None:
    """Carry out a READ, with chunks for its data and for long ranges of zeroes."""
    parts = _parts(await _extents(disk, request.offset, request.length))
    if len(parts) == 1 and not parts[0][1]:
        await disk.read_into(request.offset, replies.room(request))
        replies.add(request)
        return
    at = request.offset
    for length, zero in parts:
        request.failing_at = at
        if zero:
            replies.add_hole(request, at, length)
        else:
            await disk.read_into(at, replies.part(length))
            replies.add_part(request, at, length)
        at += length
    replies.add_done(request)


def _parts(extents: list[Extent]) -> list[tuple[int, bool]]:
    """Return lengths, and whether to leave them out; neighbours differ."""
    parts: list[tuple[int, bool]] = []
    zeroes = 0  # of the last extents, not yet in `parts`
    for extent in extents:
        if extent.zero:
            zeroes += extent.length
            continue
        _add(parts, zeroes, zero=zeroes >= GRAIN)
        zeroes = 0
        _add(parts, extent.length, zero=False)
    _add(parts, zeroes, zero=zeroes >= GRAIN)
    return parts


def _add(parts: list[tuple[int, bool]], length: int, *, zero: bool) -> None:
    if parts and parts[-1][1] == zero:
        parts[-1] = (parts[-1][0] + length, zero)
    elif length:
        parts.append((length, zero))
