"""The states of an overlay's blocks, and which of them are not on stable storage."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .._os.guard import new_guard
from ._overlay_format import STATES_A_PAGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BASE, DATA, ZERO = 0, 1, 2
_RUN = re.compile(rb"\x00+|\x01+|\x02+")


class BlockStates:
    """The state of each block, a byte each. Any thread.

    A byte is only ever replaced, under the guard, and the array never changes its size, so readers
    need no lock: they see the old state of a block or the new one.
    """

    def __init__(self, blocks: int) -> None:
        self._states = bytearray(blocks)
        self._guard = new_guard()
        # Pages of the bitmap that have changed; and those of them that are being written. Under
        # the guard.
        self._dirty: set[int] = set()
        self._on_their_way: set[int] = set()
        self._frozen = False  # under the guard

    def __len__(self) -> int:
        return len(self._states)

    def load(self, page: int, states: bytes) -> None:
        """Take over what a page of the bitmap says."""
        first = page * STATES_A_PAGE
        count = min(STATES_A_PAGE, len(self._states) - first)
        self._states[first : first + count] = states[:count]

    def all_are(self, state: int, first: int, stop: int) -> bool:
        """Return whether these blocks are all in that state."""
        if stop - first == 1:
            return self._states[first] == state
        return self._states[first:stop].count(state) == stop - first

    def count(self, state: int) -> int:
        """Return how many blocks are in that state."""
        return self._states.count(state)

    def runs(self, first: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Return the state of neighbours, and from where to where: in order."""
        for run in _RUN.finditer(bytes(self._states[first:stop])):
            yield run[0][0], first + run.start(), first + run.end()

    def set(self, state: int, first: int, stop: int) -> bool:
        """Note that these blocks have changed, and their data is in its place; False if frozen."""
        with self._guard:
            if self._frozen:
                return False
            if not self.all_are(state, first, stop):
                self._states[first:stop] = bytes([state]) * (stop - first)
                self._dirty.update(_pages(first, stop))
            return True

    def freeze(self) -> None:
        """Take no more changes: they are about to be stored for the last time."""
        with self._guard:
            self._frozen = True

    def are_stable(self, first: int, stop: int) -> bool:
        """Return whether the bitmap on stable storage says the same of these blocks."""
        with self._guard:
            return (self._dirty | self._on_their_way).isdisjoint(_pages(first, stop))

    def has_changed(self) -> bool:
        """Return whether some pages are not on stable storage."""
        with self._guard:
            return bool(self._dirty or self._on_their_way)

    def take_changed(self) -> dict[int, bytes]:
        """Return the changed pages, each with its states; `stored` or `put_back` follows."""
        with self._guard:
            taken, self._dirty = self._dirty, set()
            self._on_their_way |= taken
            return {
                page: bytes(self._states[page * STATES_A_PAGE : (page + 1) * STATES_A_PAGE])
                for page in sorted(taken)
            }

    def stored(self, pages: Iterable[int]) -> None:
        """Count them as stored: they are on stable storage."""
        with self._guard:
            self._on_their_way.difference_update(pages)

    def put_back(self, pages: Iterable[int]) -> None:
        """Count them as dirty again: they are not on stable storage."""
        with self._guard:
            self._dirty.update(pages)
            self._on_their_way.difference_update(pages)


def _pages(first: int, stop: int) -> range:
    return range(first // STATES_A_PAGE, (stop - 1) // STATES_A_PAGE + 1)
