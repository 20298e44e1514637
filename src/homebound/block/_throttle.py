"""A disk that is no faster than it should be: requests and bytes a second, with bursts."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, TypeVar

from .._os.clock import clock
from .._os.counts import check_limit
from .._sync.lock import Lock
from ._filter import Filter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._disk import Disk
    from ._operations import Buffer

T = TypeVar("T")

_CATCH_UP = 1.0  # seconds by which a waiting request may be late at no cost to those behind it
_CARRIES = {"read", "write"}
_COUNTED = {"read", "write", "trim", "write_zeroes", "fast_zeroes"}


class Budget:
    """An allowance that grows at `rate` a second, saved up for `burst` seconds.

    Kept as the time when all that was spent will have been earned, so nothing is rounded, and
    nothing drifts: the times at which waiting requests go on depend on each other only.
    """

    __slots__ = ("_burst", "_earned", "_rate")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._earned = -math.inf

    def when(self, amount: float) -> float:
        """Return when `amount` may be spent. More than a burst goes when all is saved up."""
        return self._earned - max(0.0, self._burst - amount / self._rate)

    def spend(self, amount: float, now: float, *, waited: bool) -> None:
        """Spend it, at this time or a little later than it was due, after it `waited`."""
        begin = now - _CATCH_UP if waited else now
        self._earned = max(self._earned, begin) + amount / self._rate


class ThrottleDisk(Filter):
    """`disk` with at most `iops` requests and `bytes_per_second` bytes of data each second.

    What is not used is saved for `burst_seconds`: so much more may go at once after a pause. Reads
    and writes count with their data; trimming and zeroing as requests; the rest is free. Requests
    are served in the order of their coming, whatever their size and their home; one larger than a
    burst goes when all is saved up, and those behind it wait for it to be paid off. The time is
    homebound's clock, so a `virtual_clock` holds. None means no limit. It does not close `disk`.

    Raises ValueError for a limit that is not positive, or a burst that is negative.

    >>> import homebound
    >>> from homebound.block import MemoryDisk, ThrottleDisk
    >>> from homebound.testing import virtual_clock
    >>> async def main():
    ...     with MemoryDisk(1 << 20) as disk, ThrottleDisk(disk, iops=100) as slow:
    ...         for _ in range(1100):
    ...             await slow.read(0, 512)
    >>> with virtual_clock() as clock:
    ...     homebound.run(main())
    ...     clock.now()
    10.0

    Called from: any thread.
    """

    def __init__(
        self,
        disk: Disk,
        iops: float | None = None,
        bytes_per_second: float | None = None,
        burst_seconds: float = 1.0,
    ) -> None:
        for name, limit in (("iops", iops), ("bytes_per_second", bytes_per_second)):
            if limit is not None:
                check_limit(f"ThrottleDisk: {name}", limit)
            if limit is not None and not limit > 0:
                raise ValueError(f"ThrottleDisk: {name}={limit}; it must be above 0, or None")
        if not burst_seconds >= 0:
            raise ValueError(f"ThrottleDisk: burst_seconds={burst_seconds}; it must be 0 or more")
        super().__init__(disk)
        # FIFO, and only its holder sleeps. The budgets are touched by the holder alone.
        self._turn = Lock()
        self._requests = None if iops is None else Budget(iops, burst_seconds)
        rate = bytes_per_second
        self._bytes = None if rate is None else Budget(rate, burst_seconds)

    def try_read_into(self, offset: int, buffer: memoryview) -> bool:
        """Never: it may have to wait for its turn.

        Called from: any thread.
        """
        del offset, buffer
        return False

    def try_write(self, offset: int, data: Buffer) -> bool:
        """Never: it may have to wait for its turn.

        Called from: any thread.
        """
        del offset, data
        return False

    async def _carry_out(
        self, command: str, offset: int, length: int, go_on: Callable[[int], Awaitable[T]]
    ) -> T:
        del offset
        if command in _COUNTED:
            queued = self._turn.locked()
            async with self._turn:
                await self._spend(length if command in _CARRIES else 0, waited=queued)
        return await go_on(length)

    async def _spend(self, size: int, *, waited: bool) -> None:
        """Wait until the request may go. Cancelled before, it has spent nothing."""
        costs = [(self._requests, 1), (self._bytes, size)]
        budgets = [(budget, cost) for budget, cost in costs if budget is not None and cost]
        due = max((budget.when(cost) for budget, cost in budgets), default=-math.inf)
        while (now := clock.time()) < due:
            waited = True
            await asyncio.sleep(due - now)
        for budget, cost in budgets:
            budget.spend(cost, now, waited=waited)
