"""The ranges of a disk that requests are changing: one change of a byte at a time.

A write whose client has gone is still in the disk's hands. Were another client's write of the same
block carried out and acknowledged meanwhile, the old one could end after it and undo it. So a
change claims its range before it begins, and one that overlaps an earlier claim waits until that
has ended. Reads claim nothing: one that overlaps a change sees old or new data, as if it had been
made before or after.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...block._disk import Disk


class Claim:
    """A range and how many earlier claims it waits for. All fields under the lock of its Ranges."""

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

    A claim waits only for claims that were made before it, so there is no circle, and it is granted
    in the order of claims, so none waits forever while others pass.
    """

    __slots__ = ("_lock", "_longest", "_starts", "claims")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Ordered by where they start. Written under _lock, each in step with the other. A thread
        # may look without it whether there are any `claims`: a request that came after another
        # client was answered, or was seen to be gone, finds that client's claims.
        self.claims: list[Claim] = []
        self._starts: list[int] = []
        # No claim is longer; under _lock. What overlaps a range starts at most so far before it.
        self._longest = 0

    def claim(self, start: int, length: int, grant: Callable[[], bool]) -> tuple[Claim, bool]:
        """Claim a range that is not empty: the claim, and whether it is granted at once.

        If not, `grant` is called once, by the thread that releases the last claim in the way. If it
        returns False, for there is nothing left to carry out the request, the claim is released.
        Called from: any thread.
        """
        claim = Claim(start, start + length, grant)
        with self._lock:
            for other in self._overlapping(claim.start, claim.end):
                other.waiters.append(claim)
                claim.waits_for += 1
            at = bisect_left(self._starts, start)
            self._starts.insert(at, start)
            self.claims.insert(at, claim)
            self._longest = max(self._longest, length)
            return claim, not claim.waits_for

    def release(self, claim: Claim) -> None:
        """The request has ended, or will never begin. Once for each claim.

        Called from: any thread.
        """
        ended = [claim]
        while ended:
            ended += [claim for claim in self._remove(ended.pop()) if not claim.grant()]

    def overlaps(self, start: int, length: int) -> bool:
        """Whether any claim does.

        Called from: any thread.
        """
        with self._lock:
            return bool(self._overlapping(start, start + length))

    def _overlapping(self, start: int, end: int) -> list[Claim]:
        first = bisect_left(self._starts, start - self._longest + 1)
        last = bisect_left(self._starts, end)
        return [claim for claim in self.claims[first:last] if claim.end > start]

    def _remove(self, claim: Claim) -> list[Claim]:
        """Those that are granted now."""
        with self._lock:
            at = bisect_left(self._starts, claim.start)
            while self.claims[at] is not claim:
                at += 1
            del self._starts[at], self.claims[at]
            if not self.claims:
                self._longest = 0
            claim.over = True
            granted = []
            for waiter in claim.waiters:
                waiter.waits_for -= 1
                if not (waiter.waits_for or waiter.over):
                    granted.append(waiter)
            return granted


def ranges_of(disk: Disk) -> Ranges:
    """The one that all servers of this disk share, kept with the disk.

    Called from: any thread.
    """
    # One call of a dict's own method: threads that are first together get the same one.
    ranges: Ranges = vars(disk).setdefault("_nbd_ranges", Ranges())
    return ranges
