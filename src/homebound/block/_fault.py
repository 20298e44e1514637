"""A disk that fails on purpose: errors, delays, hangs and short transfers, by rules."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar

from .._os.guard import new_guard
from .._sync.event import Event
from ._errors import DiskError
from ._filter import Filter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable

    from ._disk import Disk
    from ._operations import Buffer

T = TypeVar("T")

_Range = range
COMMANDS = (
    "read",
    "write",
    "flush",
    "trim",
    "write_zeroes",
    "fast_zeroes",
    "cache",
    "block_status",
)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A rule: which requests of a `FaultDisk` fail, and how.

    Requests: of `command` (a name, several, or None for all: read, write, flush, trim,
    write_zeroes, fast_zeroes, cache, block_status) that touch `range` (`range(4096, 8192)`; None:
    anywhere; flush touches everything); of those the `nth` (from 1), or each with `probability`,
    drawn from `seed`.

    What happens, in this order: `delay` (seconds, by homebound's clock); `hang` until the disk's
    `release()` or `close()`; `short`: only so many bytes are transferred, then it fails with EIO;
    `error` (an errno, its name, or an exception) instead of the request.

    Raises ValueError for what can never be, TypeError for a range or an error of another kind.

    >>> from homebound.block import Fault
    >>> Fault(command="write", range=range(0, 4096), nth=3, error="ENOSPC").error
    'ENOSPC'

    Called from: any thread.
    """

    command: str | Collection[str] | None = None
    range: _Range | None = None
    nth: int | None = None
    probability: float = 1.0
    seed: int = 0
    error: int | str | BaseException | None = None
    delay: float = 0.0
    hang: bool = False
    short: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.range, (_Range, NoneType)):
            message = f"Fault: range={self.range!r}; it takes a range, as range(4096, 8192)"
            raise TypeError(message)
        if not isinstance(self.error, (int, str, BaseException, NoneType)):
            message = f"Fault: error={self.error!r}; it takes an errno, its name, or an exception"
            raise TypeError(message)
        unknown = self._commands() - set(COMMANDS)
        if unknown:
            raise ValueError(f"Fault: {sorted(unknown)} are no commands; those are {COMMANDS}")
        if self.nth is not None and self.nth < 1:
            raise ValueError(f"Fault: nth={self.nth}; requests are counted from 1")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"Fault: probability={self.probability}; it is from 0 to 1")
        if self.delay < 0 or (self.short is not None and self.short < 0):
            raise ValueError(f"Fault: delay={self.delay}, short={self.short}; 0 or more")
        if isinstance(self.error, str) and not hasattr(errno, self.error):
            raise ValueError(f"Fault: error={self.error!r} is not the name of an errno")

    def _commands(self) -> set[str]:
        if self.command is None:
            return set(COMMANDS)
        return {self.command} if isinstance(self.command, str) else set(self.command)

    def covers(self, command: str, offset: int, length: int) -> bool:
        """Return whether such a request is counted.

        Called from: any thread.
        """
        if command not in self._commands():
            return False
        where = self.range
        if where is None or command == "flush":
            return True
        return offset < where.stop and where.start < offset + max(length, 1)

    def exception(self) -> BaseException | None:
        """Return the exception that the request raises.

        Called from: any thread.
        """
        error = self.error
        if error is None and self.short is not None:
            error = errno.EIO
        if error is None or isinstance(error, BaseException):
            return error
        number = getattr(errno, error) if isinstance(error, str) else error
        return DiskError(number, f"{os.strerror(number)} (on purpose)")


class _Rule:
    """A fault, and how often it was asked."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self._lock = new_guard()  # guards the two below
        self._count = 0
        self._random = random.Random(fault.seed)  # noqa: S311  (no secret)

    def strikes(self) -> bool:
        """Return whether one more request that it covers is to fail."""
        fault = self.fault
        with self._lock:
            self._count += 1
            if fault.nth is not None and self._count != fault.nth:
                return False
            return fault.probability >= 1 or self._random.random() < fault.probability


class FaultDisk(Filter):
    """`disk`, with the faults that `rules` describe: `Fault` objects, or mappings of their fields.

    Every rule that covers a request counts it; the faults of all that strike happen, one after the
    other. Other requests are the disk's own. It does not close `disk`.

    >>> import homebound
    >>> from homebound.block import Fault, FaultDisk, MemoryDisk
    >>> async def main():
    ...     rules = [Fault(command="write", nth=2, error="ENOSPC")]
    ...     with MemoryDisk(1 << 20) as disk, FaultDisk(disk, rules) as faulty:
    ...         await faulty.write(0, b"first")
    ...         await faulty.write(0, b"second")
    >>> homebound.run(main())
    Traceback (most recent call last):
    ...
    homebound.block.DiskError: No space left on device (on purpose)

    Called from: any thread.
    """

    def __init__(self, disk: Disk, rules: Iterable[Fault | Mapping[str, Any]]) -> None:
        super().__init__(disk)
        if isinstance(rules, (str, Fault, Mapping)):
            message = (
                f"FaultDisk takes a list of rules, [Fault(error='EIO')] for one; got {rules!r}"
            )
            raise TypeError(message)
        faults = [each if isinstance(each, Fault) else Fault(**each) for each in rules]
        self._rules = [_Rule(fault) for fault in faults]
        self._released = Event()
        self.hanging: int = 0  # requests that hang at this moment; written under the lock
        self._lock = new_guard()

    def release(self) -> None:
        """Let everything go on that hangs, and let nothing hang from now on.

        Called from: any thread.
        """
        self._released.set()

    def close(self) -> None:
        """Refuse all later use; what hangs raises DiskClosed. The disk below stays open.

        Called from: any thread.
        """
        super().close()
        self._released.set()

    def try_read_into(self, offset: int, buffer: memoryview) -> bool:
        """Do as the disk below does; False if a rule covers the request.

        Called from: any thread.
        """
        if self._is_covered("read", offset, len(buffer)):
            return False
        return super().try_read_into(offset, buffer)

    def try_write(self, offset: int, data: Buffer) -> bool:
        """Do as the disk below does; False if a rule covers the request.

        Called from: any thread.
        """
        if self._is_covered("write", offset, len(data)):
            return False
        return super().try_write(offset, data)

    def try_flush(self) -> bool:
        """Return whether the disk below has nothing to flush; False if a rule covers flushes.

        Called from: any thread.
        """
        return not self._is_covered("flush", 0, 0) and super().try_flush()

    def _is_covered(self, command: str, offset: int, length: int) -> bool:
        return any(rule.fault.covers(command, offset, length) for rule in self._rules)

    async def _carry_out(
        self, command: str, offset: int, length: int, go_on: Callable[[int], Awaitable[T]]
    ) -> T:
        covering = [rule for rule in self._rules if rule.fault.covers(command, offset, length)]
        for fault in [rule.fault for rule in covering if rule.strikes()]:
            if fault.delay:
                await asyncio.sleep(fault.delay)
            if fault.hang:
                await self._hang()
            if fault.short is not None:
                await go_on(min(fault.short, length))
            error = fault.exception()
            if error is not None:
                raise error
        return await go_on(length)

    async def _hang(self) -> None:
        self._count_hanging(1)
        try:
            await self._released.wait()
        finally:
            self._count_hanging(-1)
        self._check_open()

    def _count_hanging(self, change: int) -> None:
        with self._lock:
            self.hanging += change
