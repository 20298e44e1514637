"""The connections of a disk: requests from any thread in, replies to the tasks out.

Its channels, and all that they have, are touched in the home's thread only. The inbox joins the
threads: a request is appended first and then the home is told, unless it was told and has not
looked. The home forgets that it was told before it takes the first request.
"""

from __future__ import annotations

import asyncio
import errno
import time
from asyncio import get_running_loop
from collections import deque
from typing import TYPE_CHECKING, Any

from ..._aio.futures import set_unless_done
from ..._aio.tasks import running_loop, running_task
from ..._core.task import Task
from ..._core.traps import suspend
from ..._errors import ContextClosed
from ..._os.guard import new_guard
from ..._workers.pool import WorkerPool
from ...block import DiskClosed
from .._protocol.wire import Command
from .call import Call, Place
from .channel import Channel, State
from .dial import ATTEMPT_SECONDS, Attempt, Link

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._protocol.client_handshake import RemoteExport
    from .errors import ConnectError
    from .uri import Target

_LOOK_AFTER_HOME = 1.0  # seconds after which a task elsewhere looks whether the home has ended
_INBOX, _ENDED = Place.INBOX, Place.ENDED
_CLOSING = 0.001  # seconds between two looks whether a loop that is being closed is closed
_IDLE = 1.0  # seconds after which a worker that connects nothing ends


class Client:
    """The connections of a disk, and their home."""

    def __init__(
        self,
        target: Target,
        queries: Sequence[str],
        *,
        reconnect_delay: float,
        request_timeout: float | None,
        connections: int,
    ) -> None:
        self.target: Target = target
        self.reconnect_delay = reconnect_delay
        self.request_timeout = request_timeout
        self._queries = tuple(queries)
        self._pool = WorkerPool(connections, idle_timeout=_IDLE, name="nbd-connect")
        # Under the guard, which is held for a few lines: the home, and whether all is over.
        self._guard: Any = new_guard()
        self.loop: asyncio.AbstractEventLoop = get_running_loop()
        self.closed = False
        self._inbox: deque[Call] = deque()  # its own lock
        self._told = False  # the home is to look into the inbox; see above
        self._attached = False  # the channels are served. Home only
        self.channels: list[Channel] = []  # home only, once it is attached
        self._push: set[Channel] = set()  # home only
        # How many requests may wait in the inbox, to be sent together in one system call: see
        # `count_in_flight`. If it is too high for a moment they wait for the look that was told.
        self._held_back = 0  # home only
        self.interruptions = 0  # connections that were lost; written by the home
        self.ending = False  # see `shorten`. Home only
        self.export: RemoteExport  # as it was at first; set by `begin`

    def __repr__(self) -> str:
        return f"<NBD client of {self.target.label}>"

    # Opening. The disk is not used by others yet.

    async def open(self, seconds: float) -> Link:
        """Connect, and try again until `seconds` have passed. Raises ConnectError."""
        loop = get_running_loop()
        deadline, pause = loop.time() + seconds, 0.1
        longest = 1.0 if self.target.path else 16.0
        failure: ConnectError | None = None
        while True:
            left = deadline - loop.time()
            attempt = await self._attempt_here(left if left > 0 else ATTEMPT_SECONDS)
            if attempt.link is not None:
                return attempt.link
            assert attempt.error is not None
            if failure is None or attempt.error.errno != errno.ETIMEDOUT:
                failure = attempt.error  # the last try may only have had little time
            left = deadline - loop.time()
            if left > 0 and self.target.can_repeat:
                await asyncio.sleep(min(pause, max(left - 0.05, 0.01)))
                pause = min(2 * pause, longest)
            if loop.time() >= deadline or not self.target.can_repeat:
                raise failure

    async def _attempt_here(self, seconds: float) -> Attempt:
        loop = get_running_loop()
        ended = loop.create_future()

        def done(_: Attempt) -> None:
            try:
                loop.call_soon_threadsafe(set_unless_done, ended)
            except RuntimeError:
                pass  # the loop was closed; the attempt was cancelled before

        attempt = self.attempt(done, min(seconds, ATTEMPT_SECONDS))
        try:
            await ended
        except asyncio.CancelledError:
            attempt.cancel()
            raise
        return attempt

    def begin(self, links: Sequence[Link]) -> None:
        """Serve requests on these connections from now on."""
        self.export = links[0].export
        self.channels = [Channel(self, link) for link in links]
        self._attach()

    def attempt(
        self, done: Callable[[Attempt], object], seconds: float = ATTEMPT_SECONDS
    ) -> Attempt:
        """Have a worker try to connect; `done` is called at the end, and if there is no worker."""
        attempt = Attempt(self.target, self._queries, done, seconds)
        try:
            work = self._pool.submit(attempt.run)
        except RuntimeError as error:
            if self.closed:
                raise DiskClosed(self) from error
            attempt.fail(error)  # the system may have threads again at the next try
        else:
            work.add_done_callback(attempt.work_ended)
        return attempt

    # Requests.

    async def carry_out(self, call: Call) -> None:
        """Have a request sent; wait for its reply. Raises OSError if it has failed.

        A read or write of no bytes is not sent: what servers do with one is not specified.
        """
        if self.closed:
            raise DiskClosed(self)
        if not call.length and call.command != Command.FLUSH:
            return
        call.loop = loop = get_running_loop()
        at_home = loop is self.loop
        if at_home and isinstance(task := running_task(loop), Task):
            call.task = task
            call.rearm()
        else:
            call.future = loop.create_future()
        inbox = self._inbox
        inbox.append(call)
        if at_home and len(inbox) > self._held_back and self._attached:
            self._look()
        elif not self._told:
            self.look_soon()
        try:
            if call.task is not None:
                await suspend()
                if call.place is not _ENDED:
                    await self._wait_anew(call)
            else:
                await self._wait_for_future(call)
        except asyncio.CancelledError:
            await self._give_up(call)
            raise
        if call.failure is not None or call.error:
            call.raise_failure()

    def count_in_flight(self) -> None:
        """Note how many requests may wait in the inbox, after a change of those in flight.

        As many as are in flight: they keep the server busy meanwhile. With none in flight a request
        is sent at once. Of several connections the idlest counts, so that none runs out of work.
        Home only.
        """
        channels = self.channels
        if len(channels) == 1:
            self._held_back = len(channels[0].in_flight)
        else:
            self._held_back = min(map(_load, channels)) * len(channels)

    async def _wait_for_future(self, call: Call) -> None:
        """Wait for a request's future."""
        if call.loop is self.loop:
            await call.future
        else:
            await self._until(call.future)

    async def _wait_anew(self, call: Call) -> None:
        """Wait on, in a task that something else has woken: for a future now."""
        call.future = future = get_running_loop().create_future()
        self.post(self._use_future, call)
        await self._until(future)

    def _use_future(self, call: Call) -> None:
        """End a request by its future from now on, or again. Home only."""
        call.task = None
        if call.place is _ENDED:
            call.end(self.loop)

    async def _give_up(self, call: Call) -> None:
        """Forget a request whose task is cancelled, or wait for its end; it frees its buffer."""
        if call.task is not None:
            call.forget()
        loop = get_running_loop()
        future = call.future = loop.create_future()
        if loop is self.loop:
            self._forget(call)
        else:
            self.post(self._forget, call)
        while not future.done():
            try:
                await self._until(future)
            except asyncio.CancelledError:
                continue  # the caller raises one when it has ended

    async def _until(self, future: asyncio.Future[None]) -> None:
        """Wait for a future that the home completes; take its place if it ends before."""
        while not (await asyncio.wait([future], timeout=_LOOK_AFTER_HOME))[0]:
            home = self.loop
            if home.is_closed():
                self._adopt(home, get_running_loop())

    def _forget(self, call: Call) -> None:
        """End a cancelled request, if it need not be waited for. Home only."""
        place = call.place
        call.task = None
        if place is _INBOX:
            call.place = _ENDED
        elif place is not _ENDED and not call.channel.give_up(call):
            return  # its end is waited for
        call.end(self.loop)

    def post(self, callback: Callable[..., object], *args: Any) -> None:
        """Call something in the home's thread, soon. Any thread.

        If the home's loop has been closed, the caller's loop becomes the home, if it has one.
        """
        while True:
            home = self.loop
            running = running_loop()
            try:
                if running is home:
                    home.call_soon(self._at_home, callback, args)
                else:
                    home.call_soon_threadsafe(self._at_home, callback, args)
            except RuntimeError as error:
                if not isinstance(error, ContextClosed) and not home.is_closed():
                    raise
                if running is None:
                    return  # `attach` finds what there is to do
                if home.is_closed():
                    self._adopt(home, running)
                else:  # its thread is closing it: until then only that may touch its selector
                    time.sleep(_CLOSING)
            else:
                return

    def _at_home(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        """Make a call that was posted; post it again if the home has moved meanwhile."""
        if get_running_loop() is self.loop:
            callback(*args)
        else:
            self.post(callback, *args)

    def look_soon(self) -> None:
        """Have the home look into the inbox, unless it was told to and has not looked. Any thread.

        The home calls it, too, once it has ended requests, as their tasks may make others: it then
        looks right after those tasks, in the same iteration of its loop.
        """
        if not self._told:
            self._told = True
            self.post(self._look_as_told)

    def _look_as_told(self) -> None:
        self._told = False  # before the first look: pairs with carry_out's append
        self._look()

    def _look(self) -> None:
        """Take all requests from the inbox. Home only."""
        if not self._attached:
            return  # `_attach` looks
        if self.closed:
            self._refuse_waiting()
            return
        if len(self.channels) == 1:
            channel = self.channels[0]
            channel.take_all(self._inbox)
            channel.push()
        else:
            self._deal_out()
        self.count_in_flight()

    def _deal_out(self) -> None:
        """Divide the requests in the inbox among the connections."""
        inbox, push = self._inbox, self._push
        while inbox:
            call = inbox.popleft()
            if call.place is _INBOX:
                channel = self._choose()
                channel.take(call)
                push.add(channel)
        for channel in push:
            channel.push()
        push.clear()

    def _choose(self) -> Channel:
        channels = self.channels
        live = [each for each in channels if each.state is State.LIVE]
        if not live:
            return min(channels, key=_hopeless)
        if len(live) < len(channels):
            for each in channels:
                each.revive()
        return min(live, key=_load)

    def other_than(self, lost: Channel) -> Channel | None:
        """Return a channel that can take what another one has lost, if there is one."""
        live = [each for each in self.channels if each.state is State.LIVE and each is not lost]
        return min(live, key=_load) if live else None

    def push_later(self, channel: Channel) -> None:
        """Have what a channel has taken sent, once the caller is done with the channels."""
        self.loop.call_soon(channel.push)

    # The home.

    def _attach(self) -> None:
        """Serve the channels in this thread's loop, the home's. Home only."""
        self._attached = True
        if self.closed:
            self._shut()
            return
        for channel in self.channels:
            channel.attach()
        self._look_as_told()  # what was told to a home that has ended was not heard

    def _adopt(self, dead: asyncio.AbstractEventLoop, loop: asyncio.AbstractEventLoop) -> None:
        """Make the caller's loop the home, as the old one has been closed."""
        with self._guard:
            if self.loop is not dead:
                return  # another thread was first
            self._attached = False
            for channel in self.channels:
                channel.detach()
            self.loop = loop
        self._attach()

    async def move(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make `loop` the home. Requests go on: in flight, and in the inbox, in their order."""
        here = get_running_loop()
        moved: asyncio.Future[BaseException | None] = here.create_future()

        def tell(error: BaseException | None) -> None:
            here.call_soon_threadsafe(set_unless_done, moved, error)

        def leave() -> None:
            if self.closed:
                tell(DiskClosed(self))
                return
            for channel in self.channels:
                channel.detach()
            self._attached = False
            try:
                with self._guard:  # which `arrive` takes, so that it finds the loop set
                    loop.call_soon_threadsafe(arrive)
                    self.loop = loop
            except RuntimeError as error:
                self._attach()
                tell(error)

        def arrive() -> None:
            with self._guard:
                pass
            self._attach()
            tell(None)

        self.post(leave)
        error = await asyncio.shield(moved)
        if error is not None:
            raise error

    def shorten(self, seconds: float, answers: float) -> None:
        """Have requests wait at most `seconds` more for a connection, whose next try is the last.

        With 0, those in flight are given up, too. Later ones, and those in flight from now on, wait
        at most `answers` seconds for a reply. What loses its connection from then on fails with
        ESHUTDOWN. For a server that stops, and passes requests on to this disk. Any thread.
        """
        self.post(self._shorten, seconds, answers)

    def _shorten(self, seconds: float, answers: float) -> None:
        self.ending = True
        self.reconnect_delay = min(self.reconnect_delay, seconds)
        self.request_timeout = min(answers, self.request_timeout or answers)
        for channel in self.channels:
            channel.shorten(seconds)

    def close(self) -> None:
        """End all: what is under way fails with DiskClosed. Any thread."""
        with self._guard:
            if self.closed:
                return
            self.closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        if running_loop() is self.loop or self.loop.is_closed():
            self._shut()
            return
        try:
            self.loop.call_soon_threadsafe(self._shut)
        except RuntimeError:
            self._shut()  # it was closed meanwhile: nothing serves the channels

    def _shut(self) -> None:
        for channel in self.channels:
            channel.close()
        self._refuse_waiting()

    def _refuse_waiting(self) -> None:
        while self._inbox:
            call = self._inbox.popleft()
            if call.place is _INBOX:
                call.end(self.loop, DiskClosed(self))


def _load(channel: Channel) -> int:
    return channel.load


def _hopeless(channel: Channel) -> tuple[bool, int]:
    """Return a key by which a channel that fails requests comes last."""
    return channel.state is State.FAILING, len(channel.waiting)
