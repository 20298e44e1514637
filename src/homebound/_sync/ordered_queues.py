"""PriorityQueue and LifoQueue: queues that give their items in another order."""

from __future__ import annotations

import heapq
from itertools import starmap
from typing import Any, TypeVar

from .queues import Queue
from .wait_queue import ONCE

T = TypeVar("T")


class PriorityQueue(Queue[T]):
    """A Queue whose next item is the smallest one; usually a tuple of a priority and the data.

    Called from: any thread.
    """

    __slots__ = ()

    def _init(self, _maxsize: int) -> None:
        self._queue = []

    def _put(self, item: Any) -> None:
        heapq.heappush(self._queue, item)

    def _get(self) -> Any:
        for item in map(heapq.heappop, (self._queue,)):  # as Fifo.taker
            return item
        raise IndexError


class LifoQueue(Queue[T]):
    """A Queue whose next item is the last one put.

    Called from: any thread.
    """

    __slots__ = ()

    def _init(self, _maxsize: int) -> None:
        self._queue = []

    def _put(self, item: Any) -> None:
        self._queue.append(item)

    def _get(self) -> Any:
        for item in starmap(self._queue.pop, ONCE):  # as Fifo.taker
            return item
        raise IndexError
