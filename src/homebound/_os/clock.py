"""The time, and sleeping until a time: the seam where a virtual clock is put in.

Every deadline in homebound is measured on one clock: the system's monotonic clock, or, inside
`homebound.testing.virtual_clock`, one that stands still until every thread waits. The intervals
that no caller asked for do not use it: a worker's idle time, adaptive polling, the stall watch, the
repeated look at a loop that reports nothing.

Libraries that freeze time for a test replace `time.monotonic` and every module global that refers
to that function. A loop whose clock stands does no I/O, and its waits never end. So every wait that
has to end takes the time from functions that only this module has.
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
    """Load the module `time` a second time, as a library may have frozen it before this import."""
    spec = BuiltinImporter.find_spec("time")
    if spec is None or spec.loader is None:
        return time  # on this Python it is not built in
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
    """The clock in force. Only tests replace its fields, all together, by `install`.

    While the clock `stands`, a sleep until a time has no timeout: the thread that moves the clock
    wakes the sleepers. It moves the clock first and then looks for sleepers; a sleeper first shows
    that it sleeps (a loop by its bell, a thread in `park`) and then looks at the clock. So at least
    one of the two sees the other.
    """

    def __init__(self) -> None:
        self.time: Callable[[], float] = monotonic
        self.park: Callable[..., bool] = _park
        self.stands = False

    def install(self, time: Callable[[], float], park: Callable[..., bool]) -> None:
        """Put another clock in force, one that stands."""
        self.time, self.park, self.stands = time, park, True

    def restore(self) -> None:
        """Put the system's clock back in force."""
        self.time, self.park, self.stands = monotonic, _park, False


clock = Clock()


def check_timeout(timeout: float | None) -> None:
    """Raise TypeError or ValueError unless it is a number of seconds, or None."""
    if timeout is None:
        return
    try:
        is_nan = math.isnan(timeout)
    except TypeError:
        message = (
            f"the timeout is {timeout!r}; it must be a number of seconds, or None for no limit"
        )
        raise TypeError(message) from None
    if is_nan:  # it would never be reached
        message = "the timeout is NaN; it must be a number of seconds, or None for no limit"
        raise ValueError(message)


class Deadline:
    """The time at which a wait of `timeout` seconds, begun now, is over; None: never.

    Raises as `check_timeout`.
    """

    __slots__ = ("when",)

    def __init__(self, timeout: float | None) -> None:
        if timeout is not None:
            check_timeout(timeout)
        self.when: float | None = None if timeout is None else clock.time() + timeout

    def timeout(self) -> float | None:
        """Return the seconds left, 0.0 when it is over, as a timeout for a call; None: no limit."""
        return None if self.when is None else max(0.0, self.when - clock.time())

    def over(self) -> bool:
        """Return whether the time has come."""
        return self.when is not None and clock.time() >= self.when

    def park(self, parker: Parker, *, at_most: float | None = None) -> bool:
        """Sleep until unparked or until the deadline; may return early."""
        return clock.park(parker, self.when, at_most=at_most)
