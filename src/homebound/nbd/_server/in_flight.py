"""The requests of one connection that wait for the disk."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING

from ..._workers.to_worker import to_worker
from ...block._disk import BlockingDisk
from .slow import all_failed, run_one, run_slice, split

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...block._disk import Disk
    from .slow import Replies, SlowRequest

MAX_REQUESTS = 64
MAX_BYTES = 64 << 20  # of data that they carry


class InFlight:
    """Home thread only. `done` is called there with the replies to some of the requests."""

    __slots__ = ("_bytes", "_disk", "_done", "_tasks", "count", "full", "waiting")

    def __init__(self, disk: Disk, done: Callable[[Replies], None]) -> None:
        self._disk = disk
        self._done = done
        self.count = 0  # waiting to be started, or in the disk's hands
        self._bytes = 0  # what they carry
        self.full = False  # take no more for now: a function of the two
        self.waiting: list[SlowRequest] = []  # for `start`
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, request: SlowRequest) -> None:
        """One more, for the next `start`."""
        self.waiting.append(request)
        self._count(1, request.carries)

    def _count(self, requests: int, size: int) -> None:
        self.count += requests
        self._bytes += size
        self.full = self.count >= MAX_REQUESTS or self._bytes >= MAX_BYTES

    def start(self) -> None:
        """Begin what was added."""
        waiting, self.waiting = self.waiting, []
        slices = split(waiting) if isinstance(self._disk, BlockingDisk) else [[r] for r in waiting]
        loop = asyncio.get_running_loop()
        for part in slices:
            task = loop.create_task(self._carry_out(part))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def cancel(self) -> None:
        """Stop waiting for the disk; `done` is called all the same."""
        for task in list(self._tasks):
            task.cancel()

    async def _carry_out(self, requests: Sequence[SlowRequest]) -> None:
        disk = self._disk
        try:
            if isinstance(disk, BlockingDisk):
                replies = await to_worker(run_slice, disk.blocking, requests)
            else:
                replies = await run_one(disk, requests[0])
        except asyncio.CancelledError:
            self._finish(requests, all_failed(requests, OSError(errno.ESHUTDOWN, "aborted")))
            raise
        except Exception as failure:  # noqa: BLE001  (no worker to be had; the client gets a reply)
            replies = all_failed(requests, failure)
        self._finish(requests, replies)

    def _finish(self, requests: Sequence[SlowRequest], replies: Replies) -> None:
        self._count(-len(requests), -sum(request.carries for request in requests))
        self._done(replies)
