"""Taking in the connections that arrive at a listening socket."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from .listen import prepare

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Callable

_AT_ONCE = 8  # connections accepted before others of the loop get their turn
_RETRY_AFTER = 0.1  # seconds, when out of descriptors or memory
_LOOK_AFTER = 0.001  # seconds, when the homes have yet to take in those accepted before


class Acceptor:
    """Hands each connection to `take`, from now on until `stop`. Home thread of `loop` only.

    The socket becomes its own, to be closed in the end. While `busy()` none is accepted: accepting
    is quicker than taking in, so a flood of connections would pile up where clients are served.
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
        """Accept nobody any more."""
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
                    continue  # that client has left before it was its turn
                self._pause_for(_RETRY_AFTER)  # out of descriptors or memory
                return
            try:
                prepare(connection)
            except OSError:
                connection.close()  # it has left since
            else:
                self._take(connection)

    def _pause_for(self, seconds: float) -> None:
        # A connection that waits keeps the socket readable: looking again at once would be all that
        # this loop does.
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(seconds, self._listen)
