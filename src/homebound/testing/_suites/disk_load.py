"""Disks under load: cancellation, threads, homes, drained sections, and a close in the middle."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from ..._threads.io_thread import IOThread
from ..._workers.to_worker import to_worker
from .._places import Threads
from .._time.settle import settle
from .cases import turn
from .disk_model import Model, models, read

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...block import Disk

_AWAITS = 12  # iterations after which a request is cancelled: 0, 1, ...
_PIECE = 64  # bytes: several users' pieces are in one block
_PIECES = 32  # of each user, all in a few blocks
_ROUNDS = 40


async def loses_nothing_when_cancelled(disk: Disk) -> None:
    """Check that each byte is the old or the new one, and nothing lands later."""
    model = (await models(disk))[0]
    for step in range(_AWAITS):
        for request in (_write, _write_zeroes, _write_with_fua):
            offset, length = model.fit(model.start + 3000 + 512 * step, 9000)
            old, new = model.part(offset, length), model.pattern(length)
            kept = bytearray(new)
            task = asyncio.create_task(request(disk, offset, kept))
            await _cancel_at(task, step)
            kept[:] = b"?" * length  # our buffer again
            found = await read(disk, offset, length)
            late = bytes(length) if request is _write_zeroes else new
            odd = [n for n in range(length) if found[n] not in (old[n], late[n])]
            assert not odd, f"cancelled at step {step}: {len(odd)} bytes are neither old nor new"
            model.set(offset, last := model.pattern(length))
            await disk.write(offset, last)
            await settle()
            await model.check(f"cancelled at step {step}, then written again")
        await _cancel_reads(disk, model, step)


async def _write(disk: Disk, offset: int, data: bytearray) -> None:
    await disk.write(offset, data)


async def _write_with_fua(disk: Disk, offset: int, data: bytearray) -> None:
    await disk.write(offset, data, fua=True)


async def _write_zeroes(disk: Disk, offset: int, data: bytearray) -> None:
    await disk.write_zeroes(offset, len(data))


async def _cancel_reads(disk: Disk, model: Model, step: int) -> None:
    offset, length = model.fit(model.start, 20_000)
    buffer = bytearray(length)
    await _cancel_at(asyncio.create_task(disk.read_into(offset, memoryview(buffer))), step)
    buffer[:] = b"?" * length
    await _cancel_at(asyncio.create_task(disk.flush()), step)
    await settle()
    assert buffer == b"?" * length, f"a read cancelled at step {step} went on into its buffer"


async def _cancel_at(task: asyncio.Task[None], step: int) -> None:
    for _ in range(step):
        await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass


async def drains(disk: Disk) -> None:
    """Check that nothing goes on in a drained section, and everything after it."""
    model = (await models(disk))[0]
    ended: list[int] = []
    over = False

    async def use(n: int) -> None:
        offset, length = model.fit(model.start + 512 * n, 512)
        while not over:
            await disk.read(offset, length)
            ended.append(n)
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(use(n)) for n in range(4)]
    try:
        for _ in range(10):
            await turn()
            async with disk.drained(), disk.drained():
                await turn()  # those that ended before may say so now
                before = len(ended)
                buffer = memoryview(bytearray(disk.minimum_block))
                assert not disk.try_read_into(0, buffer), "an attempt succeeds while it is drained"
                await turn()
                assert len(ended) == before, "a request goes on while it is drained"
        reached = len(ended)
        while len(ended) < reached + 4:  # noqa: ASYNC110  (its end is the case's, in time or not)
            await asyncio.sleep(0)
    finally:
        over = True
        await asyncio.gather(*tasks)


class _Shares:
    """A part of a disk whose pieces belong to several users in turn."""

    def __init__(self, model: Model, users: int) -> None:
        self.model = model
        self.users = users
        self.piece = max(_PIECE, model.disk.minimum_block)
        self.start = -(-model.start // self.piece) * self.piece
        self.pieces = min((model.stop - self.start) // self.piece // users, _PIECES)

    def offset(self, user: int, number: int) -> int:
        return self.start + (number * self.users + user) * self.piece

    def work(self, user: int) -> list[tuple[int, bytes]]:
        """Offsets, and what is to be written there."""
        rng = random.Random(user)  # noqa: S311  (no secret)
        numbers = [rng.randrange(self.pieces) for _ in range(_ROUNDS)] if self.pieces else []
        return [
            (self.offset(user, number), bytes([n % 250 + 1]) * self.piece)
            for n, number in enumerate(numbers)
        ]

    async def check(self, what: str) -> None:
        if not self.model.disk.read_only:
            for user in range(self.users):
                for offset, data in self.work(user):
                    self.model.set(offset, data)
        await self.model.check(what)


async def is_used_by_threads(disk: Disk) -> None:
    """Two plain threads, and a task, whose pieces lie side by side."""
    for model in await models(disk):
        shares = _Shares(model, 3)

        def use(user: int, shares: _Shares = shares) -> None:
            for offset, data in shares.work(user):
                if disk.read_only:
                    disk.read_sync(offset, len(data))
                    continue
                disk.write_sync(offset, data)
                found = disk.read_sync(offset, len(data))
                assert found == data, (
                    f"thread {user} read {bytes(found[:16])!r} after {data[:16]!r}"
                )
            disk.flush_sync()

        with Threads() as threads:
            futures = [asyncio.wrap_future(threads.start(use, user)) for user in range(2)]
            try:
                await _use(disk, shares, 2)
            finally:
                await asyncio.wait(futures)
                failures = _failures(futures)
            for failure in failures:
                raise failure
        await shares.check("after two threads and a task")


async def is_used_by_homes(disk: Disk) -> None:
    """Two tasks in each of two I/O threads and here, whose pieces lie side by side."""
    for model in await models(disk):
        shares = _Shares(model, 6)
        with IOThread() as io, IOThread() as io2:
            tasks = [io.spawn(_use(disk, shares, user)) for user in (0, 1)]
            tasks += [io2.spawn(_use(disk, shares, user)) for user in (2, 3)]
            here = [asyncio.create_task(_use(disk, shares, user)) for user in (4, 5)]
            await asyncio.wait([*tasks, *here])
            for failure in _failures([*tasks, *here]):
                raise failure
        await shares.check("after tasks in three homes")


def _failures(futures: Sequence[asyncio.Future[None]]) -> list[BaseException]:
    """Return what they raised. One is reported; no other is logged as never retrieved."""
    errors = [each.exception() for each in futures]
    return [error for error in errors if error is not None]


async def _use(disk: Disk, shares: _Shares, user: int) -> None:
    for offset, data in shares.work(user):
        if disk.read_only:
            await disk.read(offset, len(data))
            continue
        if not disk.try_write(offset, data):
            await disk.write(offset, data)
        found = await disk.read(offset, len(data))
        assert found == data, f"user {user} read {bytes(found[:16])!r} after {data[:16]!r}"


async def survives_its_close_under_load(disk: Disk) -> None:
    """Check that every request ends, in success or an OSError."""
    model = (await models(disk))[0]
    begun = 0

    def arguments(n: int) -> tuple[int, int]:
        return model.fit(model.start + 512 * n, 5000)

    async def use(n: int) -> None:
        nonlocal begun
        offset, length = arguments(n)
        while True:
            begun += 1
            await disk.read(offset, length)
            if not disk.read_only:
                await disk.write(offset, bytes(length))
                await disk.write_zeroes(offset, length, fua=True)
            await disk.flush()
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(use(n)) for n in range(8)]
    while begun < 3 * len(tasks):  # noqa: ASYNC110  (a few iterations)
        await asyncio.sleep(0)
    await to_worker(disk.close)
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(outcome, OSError), f"a request met a close, and raised {outcome!r}"
