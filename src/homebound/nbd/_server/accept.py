"""The accept loop of a listening socket."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from .listen import prepare

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Callable

_AT_ONCE = 8  # connections accepted before the loop's other callbacks run
_RETRY_AFTER = 0.1  # seconds, when out of descriptors or memory
_LOOK_AFTER = 0.001  # seconds, when the lanes are still setting up earlier connections


class Acceptor:
    """Accepts connections and calls `take` with each, until `stop`. Home thread of `loop` only.

    It owns `listener` and closes it in `stop`. It accepts none while `busy()`: accepting is faster
    than setting up a connection, so a flood of them would queue up where clients are served.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        take: Callable[[socket.socket], None],
        busy: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._take = take
        self._busy = busy
        self._pause: asyncio.TimerHandle | None = None
        self._listen()

    def stop(self) -> None:
        """Stop accepting, and close the listener."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _listen(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            if self._busy():
                self._pause_for(_LOOK_AFTER)
                return
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ECONNABORTED:
                    continue  # the client disconnected before it was accepted
                self._pause_for(_RETRY_AFTER)  # out of descriptors or memory
                return
            try:
                prepare(connection)
            except OSError:
                connection.close()  # the client has disconnected since
            else:
                self._take(connection)

    def _pause_for(self, seconds: float) -> None:
        # A pending connection keeps the socket readable, so the loop would do nothing but call
        # _accept.
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(seconds, self._listen)
