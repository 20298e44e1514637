"""Patience: whether to write in a home thread although the kernel may make it wait.

A buffered write to a local file system is a copy into the page cache and nearly always as quick as
one to memory; a hand-over to a worker costs many times that. But when too much is dirty, or the
journal is being committed, it can take long, and whoever else lives in that thread waits with it.
So it is risked as long as it goes well: after one that took long, none is for a while.
"""

from __future__ import annotations

_TOO_LONG = 0.01  # seconds; two turns of the interpreter lock are still no sign of anything
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
        """Skip a try."""
        return now < self._not_before

    def tried(self, began: float, ended: float) -> None:
        """Note a try: the breaks grow as long as they do not help."""
        if ended - began < _TOO_LONG:
            return
        it_did_help = began > self._not_before + 10 * self._break
        self._break = _FIRST_BREAK if it_did_help else min(2 * self._break, _LONGEST_BREAK)
        self._not_before = ended + self._break
