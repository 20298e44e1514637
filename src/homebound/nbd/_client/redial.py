"""Connecting again: one try at a time, with longer and longer pauses between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .timer import Timer

if TYPE_CHECKING:
    from collections.abc import Callable

    from .client import Client
    from .dial import Attempt, Link

_FIRST_PAUSE = 0.1  # seconds between tries; doubled each time
_LONGEST_PAUSE = 16.0
_LONGEST_UNIX_PAUSE = 1.0  # trying costs next to nothing there
_BEFORE_END = 0.1  # the last try begins so long before the requests that wait fail


class Redial:
    """The tries of one channel. Home only, but for the end of a try."""

    __slots__ = ("_attempt", "_client", "_connected", "_failed", "_pause", "_timer", "until")

    def __init__(
        self,
        client: Client,
        connected: Callable[[Link], object],
        failed: Callable[[Exception | None], object],
    ) -> None:
        self._client = client
        self._connected = connected
        self._failed = failed
        self._attempt: Attempt | None = None
        self._timer = Timer(self._on_timer)  # begins the next try
        self._pause = 0.0  # before the next try; 0.0 after a connection that was of use
        self.until: float | None = None  # when the requests that wait fail, if any wait

    def start(self) -> None:
        """Try until there is a connection, at once unless the last one was of no use."""
        if self._attempt is not None or self._timer:
            return
        if self._client.closed or not self._client.target.can_repeat:
            return
        if self._pause:
            self._wait()
        else:
            self._attempt = self._client.attempt(self._on_ended)

    def hurry(self) -> None:
        """Begin the next try now, if there is a pause."""
        if self._timer:
            self._timer.cancel()
            self._on_timer()

    def of_use(self) -> None:
        """Note that the connection has answered: if it is lost, the next try begins at once."""
        self._pause = 0.0

    def detach(self) -> bool:
        """Leave the home; return whether trying is to go on in the next one."""
        tries = self._attempt is not None or bool(self._timer)
        self._timer.cancel()
        return tries

    def attach(self) -> None:
        """Go on in the home."""
        attempt = self._attempt
        if attempt is None:
            self.start()
        elif attempt.finished:
            self._end(attempt)  # that may have been posted to a loop that had been closed

    def cancel(self) -> None:
        """End it: what is being connected to is dropped."""
        self.detach()
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()

    def _wait(self) -> None:
        client = self._client
        now = client.loop.time()
        longest = _LONGEST_UNIX_PAUSE if client.target.path else _LONGEST_PAUSE
        self._pause = pause = min(max(2 * self._pause, _FIRST_PAUSE), longest)
        if self.until is not None:
            pause = min(pause, max(self.until - _BEFORE_END - now, _FIRST_PAUSE / 2))
        self._timer.start(client.loop, now + pause)

    def _on_timer(self) -> None:
        self._attempt = self._client.attempt(self._on_ended)

    def _on_ended(self, attempt: Attempt) -> None:
        """Post the outcome of a try to the home. Called in the worker, or at home."""
        self._client.post(self._end, attempt)

    def _end(self, attempt: Attempt) -> None:
        if self._attempt is not attempt:
            return  # cancelled, or heard of before
        self._attempt = None
        link = attempt.link
        if link is None:
            self._failed(attempt.error)
            self._wait()
            return
        # Until it has answered something: a server may accept and drop each connection.
        self._pause = self._pause or _FIRST_PAUSE / 2
        self._connected(link)
