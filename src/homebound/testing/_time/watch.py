"""The thread that looks whether all are idle, and notifies the callers that wait for that.

It polls: soon after something has happened, and after a while each millisecond. So the threads and
contexts that it looks at pay nothing, in a test or outside. It lives while a call of `settle`
waits, or a virtual clock is in force.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from ..._os.clock import monotonic
from ..._os.guard import new_guard
from ..._os.parking import new_parker
from ..._sync.event import Event
from .idle import Busy, cut

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ..._core.context import AioContext
    from .idle import Sleeper

_SOON = 20e-6  # seconds until the next look, when something has just happened
_LATER = 1e-3  # when nothing has for a while


class Request:
    """A call that waits until `contexts` (None: all) are idle, at most until `end`, real time."""

    def __init__(self, contexts: Collection[AioContext] | None, timeout: float | None) -> None:
        self.contexts = contexts
        self.end = None if timeout is None else monotonic() + timeout
        self.served = Event()
        self.busy: Busy | None = None  # what was busy at the end. Written before `served`
        self.error: BaseException | None = None  # a bug of ours, raised by the call. As `busy`


class Watch:
    """The requests, the clock's wish to be asked, and the thread that serves them."""

    def __init__(self) -> None:
        self._guard = new_guard()  # held for the two fields below and the thread's end
        self._requests: list[Request] = []
        self._thread: threading.Thread | None = None
        # Set under the guard by the clock in force; called by the thread; True: it did something.
        self._clock: Callable[[], bool] | None = None
        self.sleepers: set[Sleeper] = set()  # written by the clock
        self._parker = new_parker()

    def ask(self, request: Request) -> None:
        """Serve it, soon."""
        with self._guard:
            self._begin()  # first: it fails if there is no thread to be had
            self._requests.append(request)
        self._parker.unpark()

    def withdraw(self, request: Request) -> None:
        """Drop a call that has been served, or that no longer waits."""
        with self._guard:
            if request in self._requests:
                self._requests.remove(request)

    def follow(self, clock: Callable[[], bool], sleepers: set[Sleeper]) -> bool:
        """Call `clock` whenever no request can be served. False if there is another clock."""
        with self._guard:
            if self._clock is not None:
                return False
            self._begin()
            self._clock, self.sleepers = clock, sleepers
        return True

    def leave(self) -> None:
        """Forget the clock. When this returns, the clock is not being called."""
        with self._guard:
            self._clock, self.sleepers = None, set()
            thread = self._thread
            requests = bool(self._requests)
        self._parker.unpark()
        if thread is not None and thread is not threading.current_thread() and not requests:
            thread.join()

    def hurry(self) -> None:
        """Something was asked of the clock."""
        self._parker.unpark()

    def _begin(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._live, name="homebound-idle", daemon=True)
            thread.start()
            self._thread = thread

    # In the thread.

    def _live(self) -> None:
        try:
            self._watch()
        except BaseException:  # a bug of ours: it is reported, and another thread goes on
            with self._guard:
                self._thread = None
                if self._requests:
                    self._begin()
            raise

    def _watch(self) -> None:
        pace = _SOON
        while True:
            with self._guard:
                requests = tuple(self._requests)
                clock = self._clock
                if not requests and clock is None:
                    self._thread = None
                    return
            served = [each for each in requests if self._serve(each)]
            if served or (clock is not None and clock()):
                pace = _SOON
            if pace < _LATER:
                time.sleep(pace)  # a parker's shortest sleep is a millisecond
                pace *= 2
            elif self._parker.park(_LATER):
                pace = _SOON

    def _serve(self, request: Request) -> bool:
        try:
            return self._look(request)
        except BaseException as error:
            request.error = error
            self.withdraw(request)
            request.served.set()
            raise

    def _look(self, request: Request) -> bool:
        found = cut(request.contexts, self.sleepers if request.contexts is None else set())
        if isinstance(found, Busy):
            if request.end is None or monotonic() < request.end:
                return False
            request.busy = found
        self.withdraw(request)
        request.served.set()
        return True


watch = Watch()
