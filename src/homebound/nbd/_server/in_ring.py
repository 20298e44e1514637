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
from .slow import Replies

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...block._disk import Disk
    from ...block._home_ring import HomeRing
    from ...block._ring_steps import Steps
    from .ranges import Ranges
    from .slow import SlowRequest

# Requests of one client in the ring at once, a quarter of the threads that the kernel may use for
# those of a home: a client whose requests hang leaves the rest to other clients.
MAX_IN_RING = 32
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
        self._starting = True
        try:
            while True:  # not `while taken`: the jump rule
                if not taken or len(self._way) >= MAX_IN_RING:
                    break
                if ring is None or not (ring.usable and disk.try_begin()):  # or it is drained
                    others += taken
                    taken.clear()
                    break
                request = taken.popleft()
                operation = self._way[request] = _InRing(self, ring, disk, request)
                ring.start(operation)
        finally:
            self._starting = False
            if ring is not None:
                ring.submit()
        if self._finished:  # at once
            self._answer_all()
        return others

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
        if self._way.pop(operation.request, None) is None:
            return
        error = operation.error
        if error is not None:
            pass_on_interrupt(error, self._loop)
        operation.replies.add(operation.request, error)
        self._finished.append(operation.replies)
        if len(self._finished) > 1 or self._starting:
            return  # answered with the first, or at the end of `start`
        if not operation.ring.call_last(self._answer_all):
            self._answer_all()

    def _answer_all(self) -> None:
        finished, self._finished = self._finished, []
        self._answer(finished)

    def release(self, request: SlowRequest) -> None:
        """Note that the disk has ended a request. Called from: any thread."""
        assert self._disk is not None
        self._disk.end()
        self._release_claim(request)

    def _release_claim(self, request: SlowRequest) -> None:
        claim, request.claim = request.claim, None
        if claim is not None:
            self._ranges.release(claim)


class _InRing(Operation):
    """A request in the ring."""

    __slots__ = ("all", "replies", "request", "ring")

    def __init__(
        self, all_of_client: InRing, ring: HomeRing, disk: FileDisk, request: SlowRequest
    ) -> None:
        self.all = all_of_client
        self.ring = ring
        self.request = request
        self.replies = replies = Replies((request,))
        super().__init__(_steps(disk, request, replies))

    def release(self) -> None:
        """Release its claim, and count it off the disk's requests. Called from: any thread."""
        self.all.release(self.request)

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
