"""A request with the task that waits for its end."""

from __future__ import annotations

import errno
import os
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from ..._aio.futures import set_unless_done
from ..._core.cell import OneSuspension
from ...block import DiskError
from .._protocol.client_request import Request
from .._protocol.wire import Command, Error

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

# What a server's error value is here; any other is EINVAL ("Error values").
_NUMBERS: dict[int, int] = {
    Error.EPERM: errno.EPERM,
    Error.EIO: errno.EIO,
    Error.ENOMEM: errno.ENOMEM,
    Error.EINVAL: errno.EINVAL,
    Error.ENOSPC: errno.ENOSPC,
    Error.EOVERFLOW: errno.EOVERFLOW,
    Error.ENOTSUP: errno.ENOTSUP,
    Error.ESHUTDOWN: errno.ESHUTDOWN,
}


def errno_of(error: int) -> int:
    """Return the errno of this system for a server's error value; 0 for 0."""
    return _NUMBERS.get(error, errno.EINVAL) if error else 0


_CHANGES = frozenset((Command.WRITE, Command.TRIM, Command.WRITE_ZEROES))


class Place(Enum):
    """The stages of a call."""

    INBOX = "in the inbox"
    SENT = "sent"
    WAITING = "waiting for a connection"
    ENDED = "ended"


_ENDED = Place.ENDED


class Call(Request, OneSuspension):
    """A request of a task. The home writes it, once it is in the inbox, but for the future.

    A homebound task in the disk's home just suspends: that takes no future, whose callback would
    cost as much as all that the client does for a request. Any other task waits for a future.
    """

    # The suspended task, and its suspension; None: it waits for the future.
    task: Any = None
    cell: Any = None
    # The loop of the task, and what it waits for: replaced by the task when it waits anew, before
    # the home is told so.
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[None]
    channel: Any  # that it is in: sent, or waiting
    place = Place.INBOX
    failure: OSError | None = None  # why there is no reply
    names: Mapping[int, str] = MappingProxyType({})  # of the contexts in `extents`
    # Until when it is sent again; None: it has lost no connection yet. In the home's time.
    repeat_until: float | None = None
    since = 0.0  # when it was sent; 0.0 without a request_timeout

    @property
    def changes(self) -> bool:
        """True if the request changes the disk."""
        return self.command in _CHANGES

    def end(self, home: asyncio.AbstractEventLoop, failure: OSError | None = None) -> None:
        """Have the task go on, at its home. Home only."""
        self.place = _ENDED
        if failure is not None:
            self.failure = failure
        if self.task is not None:
            self.wake()
            return
        future = self.future
        if self.loop is home:
            set_unless_done(future)
            return
        try:
            self.loop.call_soon_threadsafe(set_unless_done, future)
        except RuntimeError:
            pass  # the loop of the task has been closed

    def raise_failure(self) -> NoReturn:
        """Raise what it has failed with: `failure`, or else the server's `error`."""
        if self.failure is not None:
            raise self.failure
        number = errno_of(self.error)
        raise DiskError(number, self.describe(os.strerror(number), self.error_text))

    def extents_of(self, context: str) -> bytearray | None:
        """Return the extents of a context by its name, as they came; None if none have."""
        for number, body in (self.extents or {}).items():
            if self.names.get(number) == context:
                return body
        return None

    def describe(self, why: str, text: str = "") -> str:
        """Return a sentence on what the server has answered."""
        what = Command(self.command).name
        where = f" of {self.length} bytes at {self.offset}" if self.length else ""
        return f"the server fails {what}{where}: {why}{': ' if text else ''}{text}"
