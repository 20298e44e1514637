"""Requests that the home's io_uring carries out: those that wait, on an image, without a worker.

What has come together is submitted in one system call, and what has ended together is answered
together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from ...block import _ring_steps
from ...block._file import FileDisk
from ...block._home_ring import LARGEST, Operation
from .._protocol.wire import Command, CommandFlag
from .faults import pass_on_interrupt
from .slow import Replies, all_failed

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...block._disk import Disk
    from ...block._home_ring import HomeRing
    from ...block._ring_steps import Steps
    from .ranges import Ranges
    from .slow import SlowRequest

# A client may have a third as many requests in the ring as all leave free of the kernel's threads
# for this home, and always one. So a client alone may have a quarter of them: if its requests hang,
# the rest is left to others, and so it is with each client that comes after it.
SHARE = 3
_READ, _WRITE, _FLUSH = int(Command.READ), int(Command.WRITE), int(Command.FLUSH)
_CARRIED_OUT = frozenset({_READ, _WRITE, _FLUSH})
_FUA = int(CommandFlag.FUA)


class InRing:
    """Those of one connection. Home thread only, unless said otherwise.

    A request is `taken`, waiting until there is room; then under way. It counts as one of the disk
    until it has really ended, and keeps its claim until then, also when it was given up before.
    """

    __slots__ = ("_answer", "_disk", "_finished", "_loop", "_ranges", "_starting", "_taken", "_way")

    def __init__(
        self, disk: Disk, ranges: Ranges, answer: Callable[[list[Replies]], object]
    ) -> None:
        self._disk = disk if isinstance(disk, FileDisk) else None
        self._ranges = ranges
        self._answer = answer
        self._loop = asyncio.get_running_loop()
        self._taken: deque[SlowRequest] = deque()
        self._way: dict[SlowRequest, _InRing] = {}  # under way, and not given up
        self._finished: list[Replies] = []  # to be answered together
        self._starting = False

    @property
    def waits(self) -> bool:
        """True if requests are taken and not begun."""
        return bool(self._taken)

    def take(self, requests: list[SlowRequest]) -> list[SlowRequest]:
        """Take those that a ring can carry out, to `start` them; return the others."""
        if self._disk is None or self._disk.ring_for(0) is None:
            return requests
        others: list[SlowRequest] = []
        for request in requests:
            fits = request.command in _CARRIED_OUT and request.length <= LARGEST
            (self._taken if fits else others).append(request)
        return others

    def start(self) -> list[SlowRequest]:
        """Begin what was taken, as far as there is room; return what workers must carry out."""
        disk, taken = self._disk, self._taken
        others: list[SlowRequest] = []
        if not taken or disk is None or self._starting:
            return others
        ring = disk.ring_for(0)
        self._starting = begun = True
        try:
            while True:  # not `while taken`: the jump rule
                if not taken or self._is_full(ring):
                    break
                if ring is None or not (ring.usable and begun):  # or it is drained
                    others += taken
                    taken.clear()
                    break
                begun = self._begin(ring, disk, taken)
            if ring is not None:
                ring.submit()
        except BaseException:  # of a signal handler, which stopped none of those begun
            if ring is not None:
                self._loop.call_soon(ring.submit)
            self._loop.call_soon(self._answer_all)  # and begin the rest
            raise
        finally:
            self._starting = False
        if self._finished:  # at once
            self._answer_all()
        return others

    def _is_full(self, ring: HomeRing | None) -> bool:
        return ring is not None and bool(self._way) and SHARE * len(self._way) >= ring.free

    def _begin(self, ring: HomeRing, disk: FileDisk, taken: deque[SlowRequest]) -> bool:
        """Begin the first one; False if the disk is drained. An exception is its failure."""
        request = taken[0]
        counted, operation = False, None
        try:
            counted = disk.try_begin()
            if not counted:
                return False
            operation = _InRing(self, ring, disk, request)
            del taken[0]
            self._way[request] = operation
            ring.start(operation)
        except BaseException as error:
            if operation is None:  # out of memory
                del taken[0]
                if counted:
                    disk.end()
                self._release_claim(request)
                pass_on_interrupt(error, self._loop)
                self._finished.append(all_failed([request], error))
            elif not ring.cut_short(operation, error):
                raise
        return True

    def give_up(self) -> list[SlowRequest]:
        """Wait for nothing any more; return the requests that are not answered."""
        given_up = [*self._taken, *self._way]
        for request in self._taken:
            self._release_claim(request)
        self._taken.clear()
        self._way.clear()
        return given_up

    def ended(self, operation: _InRing) -> None:
        """Answer a request that was under way, unless it was given up."""
        if self._way.get(operation.request) is None:  # given up; or told, if not to the end
            if self._finished:
                self._answer_all()
            return
        error = operation.error
        if error is not None:
            pass_on_interrupt(error, self._loop)
        operation.replies.add(operation.request, error)
        del self._way[operation.request]  # no call between the two: a signal handler may raise
        self._finished += (operation.replies,)
        if len(self._finished) > 1 or self._starting:
            return  # answered with the first, or at the end of `start`
        if not operation.ring.call_last(self._answer_all):
            self._answer_all()

    def _answer_all(self) -> None:
        finished, self._finished = self._finished, []
        self._answer(finished)

    def release(self, operation: _InRing) -> None:
        """Note that the disk has ended a request. Called from: any thread."""
        assert self._disk is not None
        self._disk.end_once(operation.counted)
        self._release_claim(operation.request)

    def _release_claim(self, request: SlowRequest) -> None:
        claim, request.claim = request.claim, None
        if claim is not None:
            self._ranges.release(claim)


class _InRing(Operation):
    """A request in the ring."""

    __slots__ = ("all", "counted", "replies", "request", "ring")

    def __init__(
        self, all_of_client: InRing, ring: HomeRing, disk: FileDisk, request: SlowRequest
    ) -> None:
        self.all = all_of_client
        self.ring = ring
        self.request = request
        self.counted = [None]  # as one of the disk's; empty when it is not any more
        self.replies = replies = Replies((request,))
        super().__init__(_steps(disk, request, replies))

    def release(self) -> None:
        """Release its claim, and count it off the disk's requests. Called from: any thread."""
        self.all.release(self)

    def tell(self) -> None:
        """Have it answered."""
        self.all.ended(self)


def _steps(disk: FileDisk, request: SlowRequest, replies: Replies) -> Steps:
    if request.command == _READ:
        return _ring_steps.read(disk.blocking, request.offset, replies.room(request))
    if request.command == _WRITE:
        fua = bool(request.flags & _FUA)
        return _ring_steps.write(disk, request.offset, request.payload, fua=fua)
    return _ring_steps.flush(disk.blocking)
