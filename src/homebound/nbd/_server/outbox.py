"""The replies to one client: packed together, sent together, held back while it does not read."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from .._protocol.buffers import BUFFER_SIZE
from .._protocol.transmission import CHUNK_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._protocol.buffers import BufferPool
    from .budget import Account

INLINE_MAX = 2 << 20  # bytes of data in a reply that is packed here
SEND_AT = 256 << 10  # bytes for one write; more would not stay in the processor's cache
SEND_MAX = 4 * SEND_AT  # bytes for the transport before the home's other connections run
MAX_UNSENT = (3 << 20) // 2  # bytes that the client has not read; beyond, no request is served
# The buffer has room, without a check for each reply, for what is unsent, what is about to be sent
# and one more reply.
assert MAX_UNSENT + SEND_AT + CHUNK_SIZE + INLINE_MAX <= BUFFER_SIZE


class Outbox:
    """The unsent replies of one connection. Home thread only.

    The transport's write buffer limit must be 0, so that paused means that bytes are unsent.

    To pack replies, call `open`, which returns the memory and the position to begin at; `send` with
    the position that was reached, after at most SEND_AT bytes; and `settle` at the end.

    A transport that could not send all is given no more until it has: some keep the rest in one
    buffer, whose contents they move after each partial send. A transport whose client reads as fast
    as it sends is given at most SEND_MAX in an iteration of the loop; the rest waits as if the
    transport had paused, and `go_on` is called to `resume`.
    """

    __slots__ = (
        "_account",
        "_begun",
        "_forced",
        "_go_on",
        "_late",
        "_owed",
        "_packed",
        "_pool",
        "_sent",
        "_transport",
        "_view",
        "full",
        "paused",
        "unsent",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        pool: BufferPool,
        account: Account,
        go_on: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._account = account
        self._go_on = go_on
        self._pool = pool
        # A pool's buffer while it holds replies. The transport may still refer to the part before
        # _sent; the part from there to _packed is held back. Both are 0 unless paused.
        self._view: memoryview | None = None
        self._sent = self._packed = 0
        self._forced = 0  # bytes that the account holds for it
        # Data held back in memory of its own, and its charge, to give back to the account when all
        # of it is sent. _owed is the charge of data whose last part the transport still has.
        self._late: deque[tuple[memoryview, int]] = deque()
        # The transport has the first part of what heads _late: the rest goes before all else, or
        # packed replies would stand in the middle of one.
        self._begun = False
        self._owed = 0
        # The client does not read, or other connections run first. `unsent` only grows until all is
        # sent, so it is an upper bound of what is left.
        self.paused = False
        self.unsent = 0
        self.full = False  # make no more replies: a function of `unsent` and the budget

    @property
    def holds_back(self) -> bool:
        """True while there is data that the transport has not been given."""
        return self._sent < self._packed or bool(self._late)

    def open(self) -> tuple[memoryview, int]:
        """Return the memory for replies and the position to begin at."""
        view = self._view
        if view is None:
            view = self._view = self._pool.take()
        return view, self._packed

    def send(self, packed: int) -> int:
        """Send the replies packed up to `packed`; return the position to go on at."""
        size = packed - self._packed
        if not size or self._view is None:
            return packed
        if self.paused:
            self._packed = packed
        elif self._hand_over(self._view[:packed]):
            self._sent = self._packed = packed
        else:
            return self._packed
        self._forced += size
        self._account.force(size)
        self._count(size)
        return packed

    def write(self, data: bytes | memoryview, charge: int = 0) -> None:
        """Send data in memory of its own, for which the account holds `charge`."""
        view = memoryview(data)
        given = 0
        while view and not self.paused and given < SEND_MAX:
            part, view = view[:SEND_AT], view[SEND_AT:]
            given += len(part)
            if self._hand_over(part):
                self._count(len(part))
        if view:
            self._begun = self._begun or given > 0  # if so, nothing else was held back
            self._late.append((view, charge))
            self._count(len(view))
            if not self.paused:
                self._pause_for_others()
        elif self.paused:
            self._owed += charge
        else:
            self._account.give_back(charge)

    def settle(self) -> None:
        """End packing: return the buffer to the pool if it is empty."""
        if self._view is not None and not self.paused:
            self._pool.give_back(self._view)
            self._view = None

    def pause(self) -> None:
        """Hold replies back: the transport could not send all."""
        self.paused = True

    def resume(self) -> None:
        """Send the rest, as long as the transport sends it at once."""
        self.paused = False
        given = 0
        while not self.paused:
            self._settle_debts()
            if given >= SEND_MAX and self._late:
                self._pause_for_others()
                return
            sent = self._sent
            rest = self._next()
            if rest is None:
                self.unsent = self._sent = self._packed = 0
                self.full = False
                self._release_forced()
                self.settle()
                return
            if self._sent == sent:  # this is not the packed part, which is small
                given += len(rest)
            self._hand_over(rest)

    def drop(self) -> None:
        """Drop all replies. The transport may still refer to the buffer, so the pool loses it."""
        self._view = None
        self._owed += sum(charge for _, charge in self._late)
        self._late.clear()
        self._begun = False
        self._sent = self._packed = 0
        self._settle_debts()
        self._release_forced()

    def _settle_debts(self) -> None:
        owed, self._owed = self._owed, 0
        self._account.give_back(owed)

    def _release_forced(self) -> None:
        forced, self._forced = self._forced, 0
        self._account.give_back(forced)

    def _pause_for_others(self) -> None:
        self.paused = True
        asyncio.get_running_loop().call_soon(self._go_on)

    def _hand_over(self, data: memoryview) -> bool:
        """Give `data` to the transport; return True if it was not all sent."""
        if self._transport.is_closing():
            return False  # an earlier write has failed; connection_lost is on its way
        self._transport.write(data)  # calls pause() before it returns if something is left
        return self.paused

    def _count(self, size: int) -> None:
        self.unsent += size
        self.full = self.unsent >= MAX_UNSENT or self._account.budget.tight

    def _next(self) -> memoryview | None:
        """Take the next part of what is held back, at most SEND_AT bytes."""
        if not self._begun and self._sent < self._packed and self._view is not None:
            start, self._sent = self._sent, min(self._packed, self._sent + SEND_AT)
            return self._view[start : self._sent]
        if not self._late:
            return None
        rest, charge = self._late.popleft()
        if len(rest) > SEND_AT:
            self._late.appendleft((rest[SEND_AT:], charge))
            self._begun = True
            rest = rest[:SEND_AT]
        else:
            self._begun = False
            self._owed += charge
        return rest
