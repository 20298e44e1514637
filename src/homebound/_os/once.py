"""An Event that is set once, without a lock that an exception could leave locked."""

from __future__ import annotations

from .greenlets import patched_by

# Where gevent has replaced threads by greenlets, one that waits for its queue lets others run.
# Where it has left threads alone, it may have replaced the queue; threads cannot use that.
if patched_by():
    from queue import SimpleQueue
else:
    from _queue import SimpleQueue


class Once:
    """An Event that is set once, by any thread. An exception leaves no lock of it locked."""

    def __init__(self) -> None:
        self.news: SimpleQueue[object] = SimpleQueue()  # not empty once it is set

    def is_set(self) -> bool:
        return not self.news.empty()

    def set(self) -> None:
        self.news.put(None)

    def wait(self) -> None:
        next(map(self.news.put, iter(self.news.get, 0)))  # in C: get what is there, and put it back
