"""A limit on the memory for the data of all clients; a request that would exceed it waits.

The server has one Budget. Each connection has an Account, in its home, with a small allowance of
its own: small requests of a client that reads its replies acquire no lock and never wait for other
clients.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ..._os.guard import new_guard
from .._protocol.requests import ALLOWANCE

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

DEFAULT_BUDGET = 512 << 20  # bytes


class Ask:
    """A request for a part of the budget, waiting to be granted."""

    __slots__ = ("grant", "size")

    def __init__(self, size: int, grant: Callable[[Ask], bool]) -> None:
        self.size = size
        self.grant = grant


class Budget:
    """Bytes that the accounts share. Used by all threads; granted in the order of the requests."""

    __slots__ = ("_lock", "_waiting", "limit", "tight", "used")

    def __init__(self, limit: int = DEFAULT_BUDGET) -> None:
        self.limit = limit
        self._lock = new_guard()  # guards the rest
        self.used = 0  # may exceed the limit by what was forced
        self._waiting: deque[Ask] = deque()
        # Nothing is available: a function of the two above, which may be read without the lock.
        self.tight = False

    def take(self, size: int, grant: Callable[[Ask], bool]) -> Ask | None:
        """Take `size` bytes now and return None, or return an Ask that waits for them.

        When they are available, the thread that released them takes them for the Ask and calls
        `grant`. If that returns False, because the home of the waiting connection has ended, they
        are given back.

        Called from: any thread.
        """
        with self._lock:
            if not self._waiting and self.used + size <= self.limit:
                self._add(size)
                return None
            ask = Ask(size, grant)
            self._waiting.append(ask)
            self.tight = True
            return ask

    def force(self, size: int) -> None:
        """Take `size` bytes, past the limit if need be, for data that is in memory already.

        Called from: any thread.
        """
        with self._lock:
            self._add(size)

    def give_back(self, size: int) -> None:
        """Give `size` bytes back, and grant them to those waiting.

        Called from: any thread.
        """
        while size:
            with self._lock:
                self._add(-size)
                granted = self._grant()
            size = sum(ask.size for ask in granted if not ask.grant(ask))

    def withdraw(self, ask: Ask) -> None:
        """Cancel a waiting Ask; do nothing if it is granted already.

        Called from: any thread.
        """
        with self._lock:
            if ask not in self._waiting:
                return
            self._waiting.remove(ask)
            granted = self._grant()
        for other in granted:
            if not other.grant(other):
                self.give_back(other.size)

    def _add(self, size: int) -> None:
        self.used += size
        self.tight = bool(self._waiting) or self.used >= self.limit

    def _grant(self) -> list[Ask]:
        granted = []
        while self._waiting and self.used + self._waiting[0].size <= self.limit:
            ask = self._waiting.popleft()
            self._add(ask.size)
            granted.append(ask)
        self._add(0)
        return granted


class Account:
    """One connection's share of the budget. Home thread only.

    `go_on` is called when a `take` that returned False may be tried again.
    """

    __slots__ = ("_ask", "_credit", "_go_on", "_loop", "_wanted", "budget", "held")

    def __init__(
        self, budget: Budget, loop: asyncio.AbstractEventLoop, go_on: Callable[[], None]
    ) -> None:
        self.budget = budget
        self._loop = loop
        self._go_on = go_on
        self.held = 0  # bytes; the part above the allowance is taken from the budget
        self._ask: Ask | None = None
        self._wanted = 0  # the size of the last `take`
        self._credit = 0  # granted after a wait and not yet held

    def take(self, size: int) -> bool:
        """Hold `size` bytes more; or return False, and call `go_on` when there is room."""
        if self._ask is not None:
            return False
        if 0 <= size <= ALLOWANCE - self.held and not self._credit:  # as most often
            self.held += size
            return True
        self._wanted = size
        need = _over(self.held + size) - _over(self.held) - self._credit
        if need > 0:
            self._ask = self.budget.take(need, self._grant)
            if self._ask is not None:
                return False
        elif need < 0:
            self.budget.give_back(-need)
        self._credit = 0
        self.held += size
        return True

    def force(self, size: int) -> None:
        """Hold `size` bytes more, for data that is in memory already."""
        more = _over(self.held + size) - _over(self.held)
        self.held += size
        if more:
            self.budget.force(more)

    def give_back(self, size: int) -> None:
        """Hold `size` bytes less."""
        if self._ask is None and self.held <= ALLOWANCE:  # as most often
            self.held -= size
            return
        less = _over(self.held) - _over(self.held - size)
        self.held -= size
        if less:
            self.budget.give_back(less)
        ask = self._ask
        if ask is not None and self.held + self._wanted <= ALLOWANCE:
            self._ask = None  # the allowance is enough now
            self.budget.withdraw(ask)
            self._go_on()

    def close(self) -> None:
        """Stop waiting. What is held must still be given back."""
        ask, self._ask = self._ask, None
        if ask is not None:
            self.budget.withdraw(ask)
        credit, self._credit = self._credit, 0
        if credit:
            self.budget.give_back(credit)

    def _grant(self, ask: Ask) -> bool:
        """Pass the grant on to the home thread.

        Called from: any thread.
        """
        try:
            self._loop.call_soon_threadsafe(self._granted, ask)
        except RuntimeError:  # that loop is closed
            return False
        return True

    def _granted(self, ask: Ask) -> None:
        if self._ask is not ask:  # the connection has ended since
            self.budget.give_back(ask.size)
            return
        self._ask = None
        self._credit += ask.size
        self._go_on()


def _over(held: int) -> int:
    return max(0, held - ALLOWANCE)
