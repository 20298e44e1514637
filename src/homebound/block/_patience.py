"""Patience: whether to write in a home thread although the kernel may block it.

A buffered write to a local file system copies into the page cache, and is nearly always as quick
as a write to memory; a hand-over to a worker costs many times that. But while too many pages are
dirty, or the journal is committed, it can take long, and every task of that thread waits. So home
threads write until a write has taken long, and then leave writes to workers for a while.
"""

from __future__ import annotations

_TOO_LONG = 0.01  # seconds; waiting twice for the interpreter lock takes less
_FIRST_BREAK = 0.1  # seconds without a try after one that took too long
_LONGEST_BREAK = 5.0


class Patience:
    """Shared by all threads that write to one file, without a lock.

    Its two numbers are only ever replaced. A thread that reads an old one tries once too often, or
    too seldom.
    """

    __slots__ = ("_break", "_not_before")

    def __init__(self) -> None:
        self._not_before = 0.0  # on the monotonic clock
        self._break = _FIRST_BREAK / 2  # the last one taken

    def lost(self, now: float) -> bool:
        """Return True if a home thread is not to write now."""
        return now < self._not_before

    def tried(self, began: float, ended: float) -> None:
        """Note how long a write took: breaks grow while the writes after them take long too."""
        if ended - began < _TOO_LONG:
            return
        it_did_help = began > self._not_before + 10 * self._break
        self._break = _FIRST_BREAK if it_did_help else min(2 * self._break, _LONGEST_BREAK)
        self._not_before = ended + self._break
