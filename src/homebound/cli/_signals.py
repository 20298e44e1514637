"""The signals of a server, handled in a thread of their own.

The main thread may be blocked in the kernel by a disk that does not answer, and would not run
handlers.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .._os.clock import monotonic
from .._os.guard import new_guard
from ._stdio import tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self

_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Signals:
    """Handle the process's signals while entered: SIGUSR1 shows statistics, the others stop it.

    SIGUSR1 calls `show_statistics`. After a signal that stops, `overdue(seconds)` is polled with
    the time since; if it returns a reason why the program cannot end by itself, the process is
    ended with that reason and status 1, as it is at a second SIGINT. Both
    are called in the thread of this class.

    Threads that are started meanwhile have these signals blocked. A child process must be started
    with the old mask, `before`.
    """

    def __init__(self) -> None:
        self.show_statistics: Callable[[], None] = _no_statistics
        self.overdue: Callable[[float], str | None] = _never
        self.before: set[int] = set()  # the signals that were blocked
        # The signal that stops. Written once, by the thread.
        self.stopped: signal.Signals | None = None
        self._on_stop: Callable[[], None] | None = None
        self._lock = new_guard()  # guards stopped and _on_stop
        self._ended = False  # read by the thread after the signal that __exit__ sends
        self._thread = threading.Thread(target=self._wait, name="signals", daemon=True)

    @contextmanager
    def calling(self, call: Callable[[], None]) -> Iterator[None]:
        """Within the block, call `call` when a signal stops; at once if one has."""
        with self._lock:
            self._on_stop = call
            came = self.stopped is not None
        if came:
            call()
        try:
            yield
        finally:
            with self._lock:
                self._on_stop = None

    def stop(self) -> None:
        """Poll `overdue` as after a SIGTERM from outside."""
        assert self._thread.ident is not None
        signal.pthread_kill(self._thread.ident, signal.SIGTERM)

    def __enter__(self) -> Self:
        # A SIGHUP that is ignored stays ignored, for nohup.
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._taken = {*_STOP, signal.SIGUSR1} - ({signal.SIGHUP} if ignored else set())
        self.before = {
            int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, self._taken)
        }
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended = True
        assert self._thread.ident is not None
        signal.pthread_kill(self._thread.ident, signal.SIGUSR1)
        self._thread.join()
        # They stay blocked: the program is ending, and a late signal must not change its status.

    def _wait(self) -> None:
        while not self._ended:
            if self.stopped is None:
                self._take(signal.sigwait(self._taken))
            else:
                self._wait_for_the_end(self.stopped)

    def _take(self, number: int) -> None:
        if self._ended:
            return
        if number == signal.SIGUSR1:
            self.show_statistics()
            return
        with self._lock:
            if self.stopped is not None:
                return
            self.stopped = signal.Signals(number)
            call = self._on_stop
        if call is not None:
            call()

    def _end_at_second(self, number: int) -> None:
        """End the process at the second Ctrl-C; SIGTERM and SIGHUP come together from systemd."""
        if number == self.stopped == signal.SIGINT and not self._ended:
            tell("homebound: ended by the second SIGINT, with requests in flight or no flush")
            os._exit(1)

    def _wait_for_the_end(self, by: signal.Signals) -> None:
        began = monotonic()
        while not self._ended:
            came = signal.sigtimedwait(self._taken, 0.2)
            if came is not None:
                self._end_at_second(came.si_signo)
                self._take(came.si_signo)
            seconds = monotonic() - began
            reason = self.overdue(seconds)
            if reason is not None and not self._ended:
                tell(f"homebound: {reason} ({by.name} came {seconds:.0f} s ago)")
                os._exit(1)


def _no_statistics() -> None:
    tell("homebound: not serving yet")


def _never(_: float) -> str | None:
    return None
