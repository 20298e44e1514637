"""`homebound bench`: requests at random offsets, many in flight, and how long each took."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .._core.task_group import TaskGroup
from .._os.clock import monotonic
from ._disks import label_of
from ._errors import CommandError
from ._interrupt import ending_with
from ._latency import Latencies
from ._places import open_place
from ._remote import Link
from ._sizes import show_size
from ._stdio import discard_output, has_terminal, put

if TYPE_CHECKING:
    from ..block import Disk

READ, WRITE, MIXED = "read", "write", "mixed"
READS_OF_MIXED = 70  # percent
_PERCENTILES = (50, 90, 99, 99.9)
_IN_A_ROW = 32  # requests of one task that did not have to wait, before others have a turn


@dataclass
class Result:
    """The requests of one kind."""

    latencies: Latencies = field(default_factory=Latencies)

    def fields(self, block_size: int, seconds: float) -> dict[str, Any]:
        """Return the figures, for JSON."""
        taken = self.latencies
        micro = {f"p{percent}": _micro(taken.percentile(percent)) for percent in _PERCENTILES}
        return {
            "requests": taken.count,
            "iops": round(taken.count / seconds, 1),
            "bytes_per_second": round(taken.count * block_size / seconds),
            "latency_us": {"mean": _micro(taken.mean), **micro, "max": _micro(taken.longest)},
        }

    def line(self, name: str, block_size: int, seconds: float) -> str:
        """Return the figures, for people."""
        taken = self.latencies
        parts = [f"p{percent} {_show(taken.percentile(percent))}" for percent in _PERCENTILES]
        rate = show_size(taken.count * block_size / seconds)
        iops = f"{taken.count / seconds:,.0f} IOPS"
        spread = "  ".join([*parts, f"max {_show(taken.longest)}"])
        return f"{name:5}  {iops:>14}  {rate:>12}/s  {spread}"


@dataclass(frozen=True)
class BenchJob:
    """A measurement as the command line describes it."""

    spec: str
    mode: str = READ
    block_size: int = 4096
    depth: int = 32
    connections: int = 1
    seconds: float = 10.0
    as_json: bool = False

    async def run(self) -> None:
        """Measure, and write the figures. Raises CommandError, DiskError or NBDError."""
        reads_only = self.mode == READ
        disk = await open_place(self.spec, read_only=reads_only, link=Link(self.connections))
        with disk:
            self._check(disk)
            load = Load(self, disk)
            await ending_with(load.run(), disk)
            self._show(disk, load)

    def _check(self, disk: Disk) -> None:
        label, size = repr(label_of(self.spec)), self.block_size
        if self.mode != READ and disk.read_only:
            raise CommandError(f"cannot write to {label}: it is read-only")
        if disk.size < size:
            raise CommandError(f"{label} has {disk.size} bytes, less than one block of {size}")
        if size % disk.minimum_block:
            raise CommandError(f"{label} has blocks of {disk.minimum_block} bytes, {size} is none")
        if disk.maximum_transfer and size > disk.maximum_transfer:
            raise CommandError(f"{label} takes at most {disk.maximum_transfer} bytes at once")

    def _show(self, disk: Disk, load: Load) -> None:
        if not self.as_json:
            for name, result in load.results.items():
                put(result.line(name, self.block_size, load.seconds))
            return
        about = {
            "disk": self.spec,
            "size": disk.size,
            "mode": self.mode,
            "block_size": self.block_size,
            "depth": self.depth,
            "connections": self.connections,
            "seconds": round(load.seconds, 3),
        }
        results = {
            name: result.fields(self.block_size, load.seconds)
            for name, result in load.results.items()
        }
        put(json.dumps({**about, **results}))


class Load:
    """Requests to a disk, as a job says, for as long as it says."""

    def __init__(self, job: BenchJob, disk: Disk) -> None:
        self.seconds: float = 0.0  # how long it took, in the end
        kinds = (READ, WRITE) if job.mode == MIXED else (job.mode,)
        self.results: dict[str, Result] = {kind: Result() for kind in kinds}
        self._job = job
        self._disk = disk
        self._blocks = disk.size // job.block_size
        self._random = random.Random()  # noqa: S311  (no secret)
        self._end = 0.0

    async def run(self) -> None:
        """Make the requests. Raises CommandError if one fails."""
        began = monotonic()
        self._end = began + self._job.seconds
        showing = asyncio.ensure_future(self._keep_line(began))
        try:
            async with TaskGroup() as group:
                for _ in range(self._job.depth):
                    group.create_task(self._work())
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        finally:
            showing.cancel()
            await asyncio.wait((showing,))
        self.seconds = monotonic() - began

    async def _work(self) -> None:
        """Make requests, one at least, however late this task begins."""
        size = self._job.block_size
        buffer = memoryview(bytearray(os.urandom(size)))
        data = bytes(buffer)
        at_once = 0  # requests since this task has waited
        now = monotonic()
        while True:
            kind = self._choose()
            offset = self._random.randrange(self._blocks) * size
            try:
                waited = await self._request(kind, offset, buffer if kind == READ else data)
            except OSError as error:
                label = repr(label_of(self._job.spec))
                words = f"cannot {kind} {label} at offset {offset}: {error.strerror or error}"
                raise CommandError(words) from error
            then, now = now, monotonic()
            self.results[kind].latencies.add(now - then)
            if now >= self._end:
                return
            at_once = 0 if waited else at_once + 1
            if at_once == _IN_A_ROW:
                await asyncio.sleep(0)
                at_once, now = 0, monotonic()

    def _choose(self) -> str:
        if self._job.mode != MIXED:
            return self._job.mode
        return READ if self._random.random() * 100 < READS_OF_MIXED else WRITE

    async def _request(self, kind: str, offset: int, data: memoryview | bytes) -> bool:
        """Make a request; return whether it had to wait."""
        disk = self._disk
        if kind == WRITE:
            if disk.try_write(offset, data):
                return False
            await disk.write(offset, data)
        else:
            assert isinstance(data, memoryview)
            if disk.try_read_into(offset, data):
                return False
            await disk.read_into(offset, data)
        return True

    async def _keep_line(self, began: float) -> None:
        """Show a live line on a terminal."""
        if not has_terminal():
            return
        from rich.console import Console  # noqa: PLC0415  (it takes longer to load than click)

        try:
            with Console(stderr=True).status("") as status:
                while True:
                    await asyncio.sleep(0.5)
                    done = sum(result.latencies.count for result in self.results.values())
                    seconds = monotonic() - began
                    left = max(0.0, self._end - monotonic())
                    status.update(f"{done / seconds:,.0f} IOPS, {left:.0f} s left")
        except OSError:  # the terminal has gone; SIGHUP follows
            discard_output(sys.stderr)


def _micro(seconds: float) -> float:
    return round(seconds * 1e6, 1)


def _show(seconds: float) -> str:
    if seconds * 1000 < 1:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
