"""The pieces of a copy: which ranges are read, and which are zeroes that need not be."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..._sync.lock import Lock
from .errors import CopyError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from .._disk import Disk
    from .._extent import Extent

    # Returns (length, whether it has changed) for a range, in order.
    Changed = Callable[[int, int], Awaitable[Iterable[tuple[int, bool]]]]

_SPAN = 128 << 20  # bytes whose extents are asked for at once
_LARGEST_ZERO = 128 << 20  # bytes that one request zeroes
# Shorter runs of zeroes are read with the data around them, which takes fewer requests.
_WORTH_SKIPPING = 64 << 10


@dataclass(frozen=True, slots=True)
class Piece:
    """A range that one worker copies; with `zero` it is known to read as zeroes."""

    offset: int
    length: int
    zero: bool


class Plan:
    """Hands out the pieces of the range `where` in order, and keeps which of them are open.

    `align` divides each boundary of a piece but the last. With `changed` only ranges for which it
    says so are handed out, extended to `align`.

    Called from: home thread.
    """

    def __init__(
        self,
        source: Disk,
        where: range,
        *,
        piece: int,
        align: int = 1,
        changed: Changed | None = None,
    ) -> None:
        self._source = source
        self._mapped = where.start  # the plan is made up to here
        self._stop = where.stop
        self._piece = piece
        self._align = align
        self._changed = changed
        self._ready: deque[Piece] = deque()
        self._open: set[int] = set()  # offsets of the pieces that are taken and not finished
        self._next = where.start  # where the piece that is taken next begins, at the earliest
        self._lock = Lock()  # held while the extents of a span are asked for

    @property
    def done_until(self) -> int:
        """The offset before which everything is finished."""
        return min(self._open, default=self._next)

    async def take(self) -> Piece | None:
        """Return the next piece, which is open until `finish`; None at the end.

        Raises CopyError if it is not known what has changed.
        """
        async with self._lock:
            while not self._ready:
                if self._mapped == self._stop:
                    self._next = self._stop
                    return None
                await self._map_span()
            piece = self._ready.popleft()
            self._open.add(piece.offset)
            self._next = piece.offset + piece.length
        return piece

    def finish(self, piece: Piece) -> None:
        """Count a piece as copied."""
        self._open.remove(piece.offset)

    async def _map_span(self) -> None:
        stop = min(self._stop, self._mapped + _SPAN)
        for start, end in await self._runs_to_copy(self._mapped, stop):
            try:
                extents = await self._source.block_status(start, end - start)
            except OSError:
                extents = []  # all is read, and a disk that fails says so then
            self._ready += self._cut(start, end, extents)
        self._mapped = stop

    async def _runs_to_copy(self, start: int, stop: int) -> list[tuple[int, int]]:
        if self._changed is None:
            return [(start, stop)]
        runs: list[tuple[int, int]] = []
        offset = start
        try:
            ranges = await self._changed(start, stop - start)
        except OSError as error:
            raise CopyError("map", start, error, target=False) from error
        for length, changed in ranges:
            if changed:
                first = max(start, offset // self._align * self._align)
                last = min(stop, -(-(offset + length) // self._align) * self._align)
                if runs and runs[-1][1] >= first:
                    first = runs.pop()[0]
                runs.append((first, last))
            offset += length
        return runs

    def _cut(self, start: int, stop: int, extents: Iterable[Extent]) -> Iterator[Piece]:
        """Return the pieces of a range: zeroes that are worth skipping, and the data between."""
        data = start  # what follows is data, up to the next zeroes
        for first, last in self._zeroes(start, stop, extents):
            yield from self._cut_data(data, first)
            for offset in range(first, last, _LARGEST_ZERO):
                yield Piece(offset, min(_LARGEST_ZERO, last - offset), zero=True)
            data = last
        yield from self._cut_data(data, stop)

    def _cut_data(self, start: int, stop: int) -> Iterator[Piece]:
        while start < stop:
            end = min(stop, (start // self._piece + 1) * self._piece)
            yield Piece(start, end - start, zero=False)
            start = end

    def _zeroes(
        self, start: int, stop: int, extents: Iterable[Extent]
    ) -> Iterator[tuple[int, int]]:
        """Return the aligned runs of zeroes that are long enough."""
        for first, last in _join(start, extents):
            begin = -(-first // self._align) * self._align
            end = last if last == stop else last // self._align * self._align
            if end - begin >= _WORTH_SKIPPING or (begin, end) == (start, stop):
                yield begin, end


def _join(offset: int, extents: Iterable[Extent]) -> Iterator[tuple[int, int]]:
    """Return the runs that read as zeroes, of one or more extents each."""
    begin: int | None = None
    for extent in extents:
        if extent.zero and begin is None:
            begin = offset
        elif not extent.zero and begin is not None:
            yield begin, offset
            begin = None
        offset += extent.length
    if begin is not None:
        yield begin, offset
