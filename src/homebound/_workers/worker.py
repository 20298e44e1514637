"""A worker: its thread, and the search for a job on which it is sent."""

from __future__ import annotations

import threading
from operator import methodcaller
from typing import TYPE_CHECKING

from .._os.once import Once
from .._os.threads import NoticedThread

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._os.parking import Parker
    from .jobs import Job


class Search:
    """A worker's look for a job, which it begins when it is started or woken."""

    __slots__ = ("parker", "under_way", "wake")

    def __init__(self, parker: Parker | None = None) -> None:
        self.under_way = True  # until the worker has found a job, or none; it is the writer
        self.parker = parker  # it keeps the descriptor open for `wake`
        self.wake: Callable[[], object] | None = None if parker is None else parker.wake


wake = methodcaller("wake")  # in C, as is what it calls; it returns None
NO_SEARCH = Search()
NO_SEARCH.under_way = False


class Worker(NoticedThread):
    """A worker's thread. It may be joined while another thread is about to start it."""

    def __init__(
        self, live: Callable[[], None], ended: Callable[[Worker], object], name: str
    ) -> None:
        super().__init__(live, ended, name)
        # The last is the one that it is on, or will be when it is woken. Written by it.
        self.searches: tuple[Search, ...] = (Search(),)
        self.tried = Once()  # set after the attempt to start it, however that has ended
        # That it does. Written by it, and after its end by what removes it.
        self.job: Job | None = None
        self.worked = False  # it has done a job, or found none to do; written by it
        # None once its start has succeeded, or has failed and that was seen to. By its starter.
        self.open: bool | None = True
        # Set as the last step of its leaving, or of its removal once it is dead or was called off.
        self.gone = False
        self.parker: Parker | None = None  # set while the thread lives; written by it

    @property
    def matters(self) -> bool:
        """True if a worker that left, or died, is still there, or if its end was cut short."""
        return self.is_alive() or not self.gone

    def join(self, timeout: float | None = None) -> None:
        if not self._started.is_set():
            self.tried.wait()
        if timeout is not None:
            timeout = min(timeout, threading.TIMEOUT_MAX)  # beyond that, OverflowError
        if self.ident is not None:  # else it could not be started
            super().join(timeout)
