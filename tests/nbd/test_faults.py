"""Disks that fail in every way: each request gets a reply, each kind is logged once."""

from __future__ import annotations

import asyncio
import errno
import logging
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.block import BlockingDisk, Disk, MemoryDisk
from homebound.nbd import NBDServer
from homebound.nbd._protocol.wire import Command, Error
from homebound.nbd._server.faults import Faults
from homebound.testing import settle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

READ, WRITE = Command.READ, Command.WRITE
SIZE = 1 << 20


class OwnBase(BaseException):
    pass


class UnprintableError(OSError):
    def __str__(self) -> str:
        raise ZeroDivisionError

    __repr__ = __str__


NOT_OSERRORS: dict[str, Callable[[], BaseException]] = {
    "an error": ZeroDivisionError,
    "SystemExit": lambda: SystemExit(3),
    "CancelledError": asyncio.CancelledError,
    "StopIteration": StopIteration,
    "StopAsyncIteration": StopAsyncIteration,
    "GeneratorExit": GeneratorExit,
    "a group": lambda: ExceptionGroup("several", [ValueError()]),
    "a BaseException of its own": OwnBase,
    "MemoryError": MemoryError,
}
OSERRORS: dict[str, Callable[[], BaseException]] = {
    "ESHUTDOWN": lambda: OSError(errno.ESHUTDOWN, "the disk says so"),
    "no errno": lambda: OSError("something"),
    "an errno that is a string": lambda: OSError("EIO", "something"),
    "an errno that is a list": lambda: OSError([5], "something"),
    "unprintable": lambda: UnprintableError(errno.EIO, "something"),
    "a timeout": TimeoutError,
}


class AtOnce(MemoryDisk):
    """A disk whose attempts fail."""

    failure: Callable[[], BaseException]

    def try_read_into(self, offset: int, buffer: memoryview) -> bool:
        if offset:
            raise self.failure()
        return super().try_read_into(offset, buffer)


class Awaited(MemoryDisk):
    """A disk whose awaited operations fail."""

    failure: Callable[[], BaseException]

    def try_read_into(self, offset: int, buffer: memoryview) -> bool:
        return not offset and super().try_read_into(offset, buffer)

    async def read_into(self, offset: int, buffer: memoryview) -> None:
        del offset, buffer
        raise self.failure()


class Nameless(Awaited):
    """A disk whose repr fails too."""

    def __repr__(self) -> str:
        raise ValueError


class InWorker(BlockingDisk):
    """A disk whose blocking operations fail."""

    failure: Callable[[], BaseException]
    read_only = False

    def __init__(self, size: int) -> None:
        self.size = size
        self.blocking: Any = self.Failing(self)

    class Failing:
        def __init__(self, disk: InWorker) -> None:
            self.disk = disk

        def read_into(self, offset: int, buffer: memoryview) -> None:
            if offset:
                raise self.disk.failure()
            buffer[:] = bytes(len(buffer))

        def flush(self) -> None:
            pass

    def close(self) -> None:
        pass


DISKS: list[type[Disk]] = [AtOnce, Awaited, Nameless, InWorker]


@pytest.mark.parametrize("kind", DISKS)
@pytest.mark.parametrize("what", [*NOT_OSERRORS, *OSERRORS])
def test_whatever_a_disk_raises_the_client_gets_a_reply(  # noqa: PLR0913, PLR0917  (fixtures)
    run: Any,
    in_memory: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    kind: Any,
    what: str,
):
    failure = (NOT_OSERRORS | OSERRORS)[what]

    async def main() -> int:
        reported: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context))
        with kind(SIZE) as disk:
            disk.failure = failure
            async with NBDServer(disk) as server:
                await server.listen_unix(tmp_path / "socket")
                client = await in_memory.client.ready(server.uris[0])
                for n in range(3):
                    client.send(READ, n, 512, 512)
                    assert await client.reply(512) == (n, Error.EIO, b"")
                client.send(READ, 9, 0, 512)
                assert await client.reply(512) == (9, 0, bytes(512))
                await client.close()
            stats = server.stats()
            assert (stats.errors, stats.disk_errors) == (3, 3)
        return len(reported)

    with caplog.at_level(logging.WARNING, "homebound.nbd"):
        reports = run(main())
    assert (reports, len(caplog.records)) == ((1, 0) if what in NOT_OSERRORS else (0, 1))


@pytest.mark.parametrize("kind", [AtOnce, Awaited, InWorker])
def test_a_keyboard_interrupt_in_an_io_thread_is_not_ctrl_c(
    in_memory: Any, tmp_path: Path, kind: Any
):
    async def main(pool: Any) -> None:
        with kind(SIZE) as disk:
            disk.failure = KeyboardInterrupt
            pool.next().context.loop.set_exception_handler(lambda *_: None)
            async with NBDServer(disk, io_threads=pool) as server:
                await server.listen_unix(tmp_path / "socket")
                client = await in_memory.client.ready(server.uris[0])
                client.send(READ, 1, 512, 512)
                assert await client.reply(512) == (1, Error.EIO, b"")
                await client.close()

    with homebound.IOThreadPool(1) as pool:
        homebound.run(main(pool))


@pytest.mark.parametrize("kind", [AtOnce, Awaited])
def test_ctrl_c_in_a_disk_ends_the_program_after_the_reply(in_memory: Any, kind: Any):
    replies: list[tuple[int, int, bytes]] = []

    async def main() -> None:
        with kind(SIZE) as disk:
            disk.failure = KeyboardInterrupt
            asyncio.get_running_loop().set_exception_handler(lambda *_: None)
            peer = in_memory.peer(disk)
            peer.ask(READ, 1, 512, 512)
            try:
                await settle()
                await asyncio.sleep(10)
            finally:
                replies.extend(peer.replies())

    with pytest.raises(KeyboardInterrupt):
        homebound.run(main())
    assert replies == [(1, Error.EIO, b"")]


def test_each_errno_is_logged_once_for_each_export(caplog: pytest.LogCaptureFixture):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with MemoryDisk(512) as disk:
            for name in ("one", "two"):
                faults = Faults(name, disk)
                for _ in range(5):
                    faults.tell(OSError(errno.EIO, "medium error"), READ, loop)
                    faults.tell(OSError(errno.ENOSPC, "no space left"), Command.WRITE_ZEROES, loop)

    homebound.run(main())
    disk = "<MemoryDisk of 512 bytes>"
    rest = "its other errors of that kind are only counted"
    assert [record.getMessage() for record in caplog.records] == [
        f"export '{name}': {disk} failed to {doing}; {rest}"
        for name in ("one", "two")
        for doing in (
            "read: EIO, [Errno 5] medium error",
            "write zeroes: ENOSPC, [Errno 28] no space left",
        )
    ]


def test_errors_without_the_disk_are_not_disk_errors(in_memory: Any):
    async def main() -> None:
        with MemoryDisk(SIZE) as disk:
            peer = in_memory.peer(disk)
            peer.ask(READ, 1, SIZE, 1)
            peer.ask(99, 2)
            assert (peer.lane.errors, peer.lane.disk_errors) == (2, 0)

    homebound.run(main())
