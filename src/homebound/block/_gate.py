"""The gate of a disk: counts the requests inside, and keeps new ones out while it is drained.

Almost every request finds it open, so that costs two operations of a deque and two looks at a flag.
The orders below pair with each other through the deque's own lock (see docs/design/block.md):

    request    append to `inside`, then look at `closed`; closed: leave, and queue
    section    set `closed` under the guard, `rotate(0)` the deque, then look whether it is empty
    leaving    pop from `inside`, then look at `closed`; closed and empty: serve the sections
"""

from __future__ import annotations

import _thread
from collections import deque
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from .._aio.tasks import running_loop, running_task
from .._core.context import whereabouts
from .._errors import WouldDeadlock
from .._os.guard import new_guard
from .._os.surely import surely
from .._sync.wait_queue import WaitQueue

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from .._sync.waiters import Waiter


T = TypeVar("T")


class Request:
    """A request inside a gate: what it does within itself passes without being counted again."""

    __slots__ = ("gate", "live", "outer", "owner")

    def __init__(self, gate: Gate, outer: Request | None) -> None:
        self.gate: Gate = gate
        self.owner: object = owner_here()
        self.outer: Request | None = outer  # of another disk, on top of this one; a chain
        self.live: bool = True  # until it has left; then a task that it began is on its own


_current: ContextVar[Request | None] = ContextVar("homebound_disk_request", default=None)


class Gate:
    """Passed by the requests of one disk, in any thread."""

    __slots__ = (
        "_drains",
        "_entrance",
        "_exit",
        "_guard",
        "_last",
        "_owners",
        "_retired",
        "closed",
        "inside",
    )

    def __init__(self) -> None:
        self.inside: deque[None] = deque()  # an entry for each request; atomic operations
        # Drained, or requests queue, or retired. Written under the guard, read by all.
        self.closed: bool = False
        self._guard: Any = new_guard()
        self._drains = 0  # sections begun and not ended. Under the guard
        self._owners: list[object] = []  # whose they are, for the error. Under the guard
        self._retired = False  # under the guard
        self._last: Callable[[], object] | None = None  # to do when empty; under the guard
        self._entrance = _Entrance(self)
        self._exit = _Exit(self)

    def __repr__(self) -> str:
        return f"<Gate {'drained' if self._drains else 'open'}, {len(self.inside)} inside>"

    # Requests.

    def admits(self, request: Request | None) -> bool:
        """Return whether code that runs inside `request` is inside this gate already."""
        while request is not None:
            if request.gate is self and request.live:
                return True
            request = request.outer
        return False

    def enter(self) -> bool:
        """Go in, if it is open."""
        self.inside.append(None)
        if self.closed:  # after the append: pairs with _Exit
            self.leave()
            return False
        return True

    async def wait(self) -> None:
        """Queue, and go in. Raises WouldDeadlock for the task that keeps it closed."""
        self.check_owner("a request")
        await self._entrance._wait()

    def leave(self) -> None:
        """Go out."""
        self.inside.pop()
        if self.closed and not self.inside:  # after the pop: pairs with _Exit, and with retire
            self.tell_empty()

    def leave_once(self, counted: list[None]) -> None:
        """Go out, unless that was done: `counted` has one entry until then."""
        if counted:
            del counted[0], self.inside[0]  # not by calls, after which a signal handler could raise
        if self.closed and not self.inside:  # as above; if it was cut short here, once more
            self.tell_empty()

    def refuses(self) -> bool:
        """Return whether an attempt must be refused at a gate that was found closed."""
        waits = self._drains or self._entrance._waiters
        return bool(waits) and not self.admits(_current.get())

    def tell_empty(self) -> None:
        """Wake the sections that wait for the last request to leave."""
        self._exit._serve()
        if self._retired:
            self._do_last()

    def retire(self, last: Callable[[], object]) -> None:
        """Do `last` once all that is inside now has left, at once if nothing is. Once.

        The disk was closed: it refuses what comes later by itself, so that may come in.
        """
        with self._guard:
            if self._retired:
                return
            self._last = last
            self._retired = self.closed = True
        self.inside.rotate(0)  # pairs with the append of a request
        if not self.inside:
            self._do_last()

    def _do_last(self) -> None:
        with self._guard:
            last, self._last = self._last, None
        if last is not None:
            last()

    # Sections.

    def shut(self, owner: object) -> None:
        """Begin a section, that of `owner`: from now on nothing goes in."""
        begun = False
        try:
            with self._guard:
                self._drains += 1
                begun = True  # no call between the two, after which a signal handler could raise
                self._owners.append(owner)
                self.closed = True
        except BaseException:
            if begun:
                self.reopen(owner)
            raise

    async def emptied(self) -> None:
        """Wait until nothing is inside."""
        await self._exit._wait()

    def emptied_sync(self) -> None:
        """Wait in this thread until nothing is inside."""
        self._exit._wait_sync(None)

    def reopen(self, owner: object) -> None:
        """End a section; the last one admits the waiting requests, in their order."""
        surely(self._end_section, owner, [])

    def _end_section(self, owner: object, ended: list[None]) -> None:
        with self._guard:
            owners = self._owners
            if not ended:  # else it was cut short after this, and only has to let requests in
                at = owners.index(owner) if owner in owners else len(owners)
                del owners[at : at + 1]  # no call from here on, after which a handler could raise
                self._drains -= 1
                ended += (None,)
        self._let_in()

    def _let_in(self) -> None:
        if self._guard._is_owned():  # in a finaliser, on top of half a change
            self._entrance._later(self._let_in)
            return
        while True:
            self._entrance._serve()
            with self._guard:
                if self._drains:
                    return
                if not self._entrance._waiters:
                    self.closed = self._retired
                    return

    def check_owner(self, what: str) -> None:
        """Raise WouldDeadlock if the section that keeps it closed is the caller's own."""
        if self._owners and owner_here() in self._owners:
            message = (
                f"{what} from {whereabouts()}: it would wait for the end of the drained section "
                "that it is in; make it before the section, or after"
            )
            raise WouldDeadlock(message)


class _Entrance(WaitQueue):
    """Requests that wait for the last section to end."""

    __slots__ = ("_gate",)

    def __init__(self, gate: Gate) -> None:
        super().__init__(None, gate._guard)
        self._gate = gate

    def _take(self, waiter: Waiter) -> bool:
        if self._gate._drains:
            return False
        inside = self._gate.inside
        inside += (None,)  # not by a call, after which a signal handler could raise
        waiter.granted = True
        return True

    def _give_back(self, waiter: Waiter) -> None:
        del self._gate.inside[0]  # not by a call: see WaitQueue._take
        waiter.left = True

    def _go(self, waiter: Waiter) -> None:
        super()._go(waiter)
        gate = self._gate
        if gate.closed and not gate.inside:
            gate.tell_empty()

    def _describe(self) -> str:
        return "requests"


class _Exit(WaitQueue):
    """Sections that wait for the last request to leave."""

    __slots__ = ("_gate",)

    def __init__(self, gate: Gate) -> None:
        super().__init__(gate.inside, gate._guard)  # joining passes through its lock
        self._gate = gate

    def _take(self, waiter: Waiter) -> bool:
        waiter.granted = not self._gate.inside
        return waiter.granted

    def _give_back(self, waiter: Waiter) -> None:
        """Give back nothing: emptiness is not used up."""
        waiter.left = True

    def _describe(self) -> str:
        return "sections"


def owner_here() -> object:
    """Return the running task, or else the thread."""
    loop = running_loop()
    task = None if loop is None else running_task(loop)
    return task if task is not None else _thread.get_ident()


class Drained:
    """`async with` in a task, `with` in a thread: nothing is inside, and nothing goes in.

    Called from: any thread.
    """

    __slots__ = ("_gate", "_owner")

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._owner: object = None

    def _begin(self) -> None:
        gate, request = self._gate, _current.get()
        if gate.admits(request) and request is not None and request.owner is owner_here():
            message = (
                f"drained() from {whereabouts()}: it would wait for the request that it is in; "
                "drain outside of the disk's own operations"
            )
            raise WouldDeadlock(message)
        self._owner = owner_here()
        gate.shut(self._owner)

    async def __aenter__(self) -> None:
        self._begin()
        try:
            await self._gate.emptied()
        except BaseException:
            self._gate.reopen(self._owner)
            raise

    async def __aexit__(self, *_error: object) -> None:
        self._gate.reopen(self._owner)

    def __enter__(self) -> None:
        self._begin()
        try:
            self._gate.emptied_sync()
        except BaseException:
            self._gate.reopen(self._owner)
            raise

    def __exit__(self, *_error: object) -> None:
        self._gate.reopen(self._owner)


class Inside:
    """`async with`: a request of the disk, as far as draining is concerned."""

    __slots__ = ("_gate", "_request", "_token")

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._request: Request | None = None
        self._token: Any = None

    async def __aenter__(self) -> Self:
        gate, outer = self._gate, _current.get()
        if outer is not None and gate.admits(outer):
            return self
        if not gate.enter():
            await gate.wait()
        self._request = Request(gate, outer)
        self._token = _current.set(self._request)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._request is not None:
            _end(self._request, self._token)


def _end(request: Request, token: Any) -> None:
    request.live = False
    try:
        _current.reset(token)
    except ValueError:
        pass  # a coroutine that is closed elsewhere, in another context
    request.gate.leave()


# How the methods of a class become requests.


def counted_operation(operation: Any) -> Any:
    """Return the operation, as a request of its disk."""

    @wraps(operation)
    async def request(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        gate, outer = self._gate, _current.get()
        if outer is not None and gate.admits(outer):
            return await operation(self, *args, **kwargs)
        if not gate.enter():
            await gate.wait()
        me = Request(gate, outer)
        token = _current.set(me)
        try:
            return await operation(self, *args, **kwargs)
        finally:
            _end(me, token)

    request._homebound_counted = True  # type: ignore[attr-defined]
    return request


def self_counted(operation: T) -> T:
    """Mark an operation that passes the gate itself, so that it is not made a request here.

    It may do so with `enter` and `leave` alone if nothing that it calls is an operation of a disk.
    """
    operation._homebound_counted = True  # type: ignore[attr-defined]
    return operation


def counted_attempt(attempt: Any) -> Any:
    """Return the attempt, as a request of its disk: False at a closed gate."""

    @wraps(attempt)
    def request(self: Any, offset: int, buffer: Any, /) -> Any:
        # As `enter` and `leave`, without the calls: this is what most requests come to.
        gate = self._gate
        gate.inside.append(None)
        try:
            if gate.closed and gate.refuses():
                return False
            return attempt(self, offset, buffer)
        finally:
            gate.inside.pop()
            if gate.closed and not gate.inside:
                gate.tell_empty()

    request._homebound_counted = True  # type: ignore[attr-defined]
    return request
