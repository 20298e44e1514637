"""What time it is, and how a thread sleeps until then: the seam in which a virtual clock stands.

Every deadline of homebound is of one clock. It is the system's monotonic one; while
`homebound.testing.virtual_clock` is in force it is one that stands still until everything waits.
Not of this clock are the paces of our own machinery, which no caller asked for: a worker's idle
time, adaptive polling, the stall watch, looking again at a loop that does not tell.

Libraries that freeze time for a test replace `time.monotonic`, and each global of any module that
is this very function. A loop whose clock stands does no I/O, and a wait has no end. So what has to
end measures time with functions that are nobody else's: those of this module.
"""

from __future__ import annotations

import importlib.util
import math
import time
from importlib.machinery import BuiltinImporter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from .parking import Parker


def _copy_of_time() -> ModuleType:
    """The module `time`, made once more: right also if it is frozen while we are imported."""
    spec = BuiltinImporter.find_spec("time")
    if spec is None or spec.loader is None:
        return time  # a Python that has it in a file
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    return copy


_time = _copy_of_time()
monotonic: Callable[[], float] = _time.monotonic
perf_counter: Callable[[], float] = _time.perf_counter
perf_counter_ns: Callable[[], int] = _time.perf_counter_ns


def _park(
    parker: Parker, until: float | None, *, at_most: float | None = None, also: int | None = None
) -> bool:
    """Sleep until unparked, the time `until`, `at_most` seconds, or input at descriptor `also`."""
    timeout = at_most
    if until is not None:
        left = until - monotonic()
        timeout = left if at_most is None else min(left, at_most)
    return parker.park(timeout) if also is None else parker.park(timeout, also=also)


class Clock:
    """The clock in force. Its fields are replaced as a whole by `install`, in tests alone.

    Where it `stands`, whoever sleeps until a time sleeps for ever, and is woken by the thread that
    moves the clock. That one moves it, then looks who sleeps; a sleeper first shows that it sleeps
    (a loop by its bell, a thread in `park`), then looks at the clock: one of them sees the other.
    """

    def __init__(self) -> None:
        self.time: Callable[[], float] = monotonic
        self.park: Callable[..., bool] = _park
        self.stands = False

    def install(self, time: Callable[[], float], park: Callable[..., bool]) -> None:
        """Have another clock in force, one that stands."""
        self.time, self.park, self.stands = time, park, True

    def restore(self) -> None:
        """Have the system's in force again."""
        self.time, self.park, self.stands = monotonic, _park, False


clock = Clock()


class Deadline:
    """The end of a wait of `timeout` seconds that begins now; never, with None.

    Raises ValueError for a timeout that is no number: it would be neither over nor to come.
    """

    __slots__ = ("when",)

    def __init__(self, timeout: float | None) -> None:
        if timeout is not None and math.isnan(timeout):
            message = "the timeout is NaN; it must be a number of seconds, or None for no limit"
            raise ValueError(message)
        self.when: float | None = None if timeout is None else clock.time() + timeout

    def timeout(self) -> float | None:
        """The seconds left, 0.0 when it is over, as a timeout for a call; None: no limit."""
        return None if self.when is None else max(0.0, self.when - clock.time())

    def over(self) -> bool:
        """The time has come."""
        return self.when is not None and clock.time() >= self.when

    def park(self, parker: Parker, *, at_most: float | None = None) -> bool:
        """Sleep until unparked, or until it is over; wakes may be spurious."""
        return clock.park(parker, self.when, at_most=at_most)
