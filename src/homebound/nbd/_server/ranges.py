"""The ranges of a disk that requests are changing: one change of a byte at a time.

A write goes on at the disk after its client has disconnected. If another client's write of the same
block completed meanwhile, the old write could end after it and undo it. So a change claims its
range before it begins, and waits for earlier claims that overlap it. Reads claim nothing: a read
that overlaps a change sees old or new data, as if it came before or after.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from ..._os.guard import new_guard

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...block._disk import Disk


class Claim:
    """A range, and how many earlier claims it waits for. Guarded by the lock of its Ranges."""

    __slots__ = ("end", "grant", "over", "start", "waiters", "waits_for")

    def __init__(self, start: int, end: int, grant: Callable[[], bool]) -> None:
        self.start = start
        self.end = end
        self.grant = grant
        self.waits_for = 0
        self.waiters: list[Claim] = []  # later claims that wait for this one, in order
        self.over = False


class Ranges:
    """The claims on one disk, by requests of any connection, in any thread.

    A claim waits only for earlier claims, so there is no deadlock, and overlapping claims are
    granted in order, so none starves.
    """

    __slots__ = ("_lock", "_longest", "_starts", "claims")

    def __init__(self) -> None:
        self._lock = new_guard()
        # Ordered by their start. Both lists are changed together, under _lock. A thread may read
        # without it whether there are any `claims`: a request that arrives after another client was
        # answered, or is known to have disconnected, finds that client's claims.
        self.claims: list[Claim] = []
        self._starts: list[int] = []
        # No claim is longer, so one that overlaps a range starts at most this far before it.
        self._longest = 0

    def claim(self, start: int, length: int, grant: Callable[[], bool]) -> tuple[Claim, bool]:
        """Claim a range that is not empty; return the claim, and whether it is granted at once.

        If not, the thread that releases the last claim it waits for calls `grant` once. If that
        returns False, because the home of the request has ended, the claim is released.

        Called from: any thread.
        """
        claim = Claim(start, start + length, grant)
        with self._lock:
            at = 0
            if self.claims:  # else, as most often, there is nothing to look for
                for other in self._overlapping(claim.start, claim.end):
                    other.waiters.append(claim)
                    claim.waits_for += 1
                at = bisect_left(self._starts, start)
            self._starts.insert(at, start)
            self.claims.insert(at, claim)
            self._longest = max(self._longest, length)
            return claim, not claim.waits_for

    def release(self, claim: Claim) -> None:
        """Release a claim, once: its request has ended, or will not begin.

        Called from: any thread.
        """
        ended = [claim]
        while ended:
            ended += [claim for claim in self._remove(ended.pop()) if not claim.grant()]

    def overlaps(self, start: int, length: int) -> bool:
        """Return whether any claim overlaps the range.

        Called from: any thread.
        """
        with self._lock:
            return bool(self._overlapping(start, start + length))

    def _overlapping(self, start: int, end: int) -> list[Claim]:
        first = bisect_left(self._starts, start - self._longest + 1)
        last = bisect_left(self._starts, end)
        return [claim for claim in self.claims[first:last] if claim.end > start]

    def _remove(self, claim: Claim) -> list[Claim]:
        """Take out a claim; return the claims to grant now."""
        with self._lock:
            at = bisect_left(self._starts, claim.start)
            if self.claims[at] is not claim:  # others begin there
                at = self.claims.index(claim, at)
            del self._starts[at], self.claims[at]
            if not self.claims:
                self._longest = 0
            claim.over = True
            return _granted_by_end_of(claim) if claim.waiters else []


def _granted_by_end_of(claim: Claim) -> list[Claim]:
    """Count `claim` off its waiters; return those that wait for no other. Under the lock.

    Not a loop in the `with` itself: the jump rule.
    """
    granted = []
    for waiter in claim.waiters:
        waiter.waits_for -= 1
        if not (waiter.waits_for or waiter.over):
            granted.append(waiter)
    return granted


def ranges_of(disk: Disk) -> Ranges:
    """Return the Ranges that all servers of this disk share, an attribute of the disk.

    Called from: any thread.
    """
    # dict.setdefault is atomic, so that threads that call this at once get the same one.
    ranges: Ranges = vars(disk).setdefault("_nbd_ranges", Ranges())
    return ranges
