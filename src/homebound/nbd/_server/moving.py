"""Moving connections to other I/O threads while their clients send requests.

A connection moves when it is quiet: it takes no further request, and all replies have been given to
the system. Its socket and the bytes that it has received go to the new home, where a new Connection
goes on with them, so no request is lost, repeated or reordered.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, cast

from ..._aio.futures import set_unless_done
from ..._errors import ContextClosed
from .connection import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence
    from typing import Any

    from ..._threads.io_thread import IOThread
    from .connection import Quiet
    from .lane import Lane

    Place = tuple[IOThread | None, Lane]
    AtHome = Callable[[IOThread | None, Coroutine[Any, Any, None]], asyncio.Future[None] | None]


class Arrival(asyncio.Protocol):
    """Makes the Connection of a socket that has come from another home."""

    def __init__(self, lane: Lane, quiet: Quiet) -> None:
        self._lane = lane
        self._quiet = quiet

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Go on where the connection has stopped."""
        transport = cast("asyncio.Transport", transport)  # uvloop's is not one
        transport.set_write_buffer_limits(0)
        quiet = self._quiet
        connection = Connection(self._lane, transport, quiet.served, **quiet.session)
        connection.end_visit, connection.reach = quiet.end_visit, quiet.reach
        transport.set_protocol(connection)
        connection.unpack(quiet.rest)
        self._lane.join(connection)
        connection.resume()
        if quiet.reach is not None:
            quiet.reach.arrive(transport, asyncio.get_running_loop())


@dataclass(eq=False)
class _Placement:
    """The I/O threads that an export was moved to."""

    lanes: frozenset[Lane]
    turns: cycle[Place]


class Mover:
    """Moves the connections of a server. Its methods run in the loop that listens."""

    def __init__(self, at_home: AtHome) -> None:
        self._at_home = at_home
        self._loop: asyncio.AbstractEventLoop | None = None
        # By the name of an export. Homes read it, for connections that begin later.
        self._placed: dict[str, _Placement] = {}
        self._turn = asyncio.Lock()  # one move at a time

    async def move(self, name: str, places: Sequence[Place], all_places: Iterable[Place]) -> None:
        """Move all connections of an export to `places`; return when none is elsewhere."""
        async with self._turn:
            self._loop = asyncio.get_running_loop()
            lanes = frozenset(lane for _, lane in places)
            placement = self._placed[name] = _Placement(lanes, cycle(places))
            leaving: list[_Leaving] = []
            try:
                for place in all_places:
                    # A call, because of a jump back: see tests/core/test_jumps_back.py.
                    await self._begin_to_leave(name, place, placement, leaving)
                for group in leaving:
                    await group.left()
            except BaseException:
                for group in leaving:
                    group.give_up()
                raise

    async def _begin_to_leave(
        self, name: str, place: Place, placement: _Placement, leaving: list[_Leaving]
    ) -> None:
        io, lane = place
        if lane in placement.lanes:
            return
        loop = asyncio.get_running_loop()
        group = _Leaving(name, lane, loop, partial(self._arrive, placement))
        task = self._at_home(io, group.begin())
        if task is not None:
            leaving.append(group)
            await task

    def settle(self, connection: Connection, lane: Lane) -> None:
        """Move a connection that has just begun, if its export was moved to other homes.

        Called from: home thread.
        """
        placement = self._placed.get(connection.name)
        loop = self._loop
        if placement is None or loop is None or lane in placement.lanes:
            return
        connection.move(partial(_pass_on, loop, partial(self._arrive, placement)))

    def _arrive(self, placement: _Placement, quiet: Quiet | None) -> asyncio.Future[None] | None:
        """Continue a connection in its new home; return the arrival."""
        if quiet is None:
            return None  # it has ended
        io, lane = next(placement.turns)
        arrival = partial(Arrival, lane, quiet)
        arriving = lane.adopt(quiet.socket, arrival, partial(_drop, quiet))
        arrival_there = self._at_home(io, arriving)
        if arrival_there is None:
            _drop(quiet)  # that I/O thread has been stopped
        return arrival_there


class _Leaving:
    """The connections of one lane that are to leave it."""

    def __init__(
        self,
        name: str,
        lane: Lane,
        loop: asyncio.AbstractEventLoop,
        arrive: Callable[[Quiet | None], asyncio.Future[None] | None],
    ) -> None:
        self._name = name
        self._lane = lane
        self._loop = loop  # that listens
        self._arrive = arrive
        self._left: list[asyncio.Future[asyncio.Future[None] | None]] = []
        self._home: asyncio.AbstractEventLoop | None = None
        self._connections: list[Connection] = []  # used in their home

    async def begin(self) -> None:
        """Have the connections move once they are quiet.

        Called from: home thread.
        """
        self._home = asyncio.get_running_loop()
        for member in list(self._lane.members):
            if isinstance(member, Connection) and member.name == self._name:
                self._connections.append(member)
                left = self._loop.create_future()
                self._left.append(left)
                member.move(partial(_pass_on, self._loop, partial(self._leave, left)))

    async def left(self) -> None:
        """Wait until all have left, or have ended."""
        for left in self._left:
            arrival = await left
            if arrival is not None:
                # Shielded: a cancelled wait would cancel the arrival, and disconnect the client.
                await asyncio.shield(until_done(arrival))

    def give_up(self) -> None:
        """Have the connections that have not moved yet go on where they are."""
        if self._home is not None:
            _pass_on(self._home, self._stay, None)

    def _stay(self, _: None) -> None:
        for connection in self._connections:
            connection.stay()

    def _leave(
        self, left: asyncio.Future[asyncio.Future[None] | None], quiet: Quiet | None
    ) -> None:
        arrival = self._arrive(quiet)
        set_unless_done(left, arrival)


def _pass_on(
    loop: asyncio.AbstractEventLoop, function: Callable[[Any], object], quiet: Quiet | None
) -> None:
    """Call a function in another loop; without it, the connection ends."""
    try:
        loop.call_soon_threadsafe(function, quiet)
    except RuntimeError:  # that loop is closed
        if quiet is not None:
            _drop(quiet)


def _drop(quiet: Quiet) -> None:
    """Disconnect a client that has no home any more."""
    quiet.socket.close()
    quiet.end_visit(_nothing)


def _nothing() -> None:
    """Leave nothing: the connection is in no lane."""


async def until_done(task: asyncio.Future[None]) -> None:
    """Wait for work in a home; the end of that home ends the work too."""
    try:
        await task
    except ContextClosed:
        pass
    except asyncio.CancelledError:
        me = asyncio.current_task()
        if not task.cancelled() or (me is not None and me.cancelling()):
            raise
