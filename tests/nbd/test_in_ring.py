"""The server's requests in the home's io_uring."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.block import FileDisk, _home_ring
from homebound.block._home_ring import MOST_THREADS, ring_here
from homebound.nbd import NBDServer
from homebound.nbd._protocol.wire import Command, CommandFlag, Error
from homebound.nbd._server import in_ring, slow
from homebound.nbd._server.lane import Lane
from homebound.nbd._server.ranges import ranges_of
from homebound.testing import settle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from homebound.block._home_ring import HomeRing

READ, WRITE, FLUSH = Command.READ, Command.WRITE, Command.FLUSH
FUA = CommandFlag.FUA
SIZE = 1 << 20
CONTENT = random.Random(3).randbytes(SIZE)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a home make its ring for the first request that waits."""
    monkeypatch.setattr(_home_ring, "FEW", 0)


@pytest.fixture
def image() -> Iterator[Path]:
    async def main() -> bool:
        return ring_here() is not None

    if not homebound.run(main()):
        pytest.skip("no io_uring here")
    path = Path(f"/var/tmp/homebound-in-ring-{os.getpid()}-{random.randrange(2**32)}")
    path.write_bytes(CONTENT)
    with FileDisk(path) as disk:
        waits = disk.blocking.nowait
    if not waits:
        path.unlink()
        pytest.skip("nothing waits there")
    yield path
    path.unlink()


def have_reads_wait(disk: FileDisk) -> None:
    """Have each read wait for storage, as if nothing were in memory.

    A kernel may keep a page that it was told to forget, and one that is asked for a page without
    waiting may begin to read it, and have it when the next request looks.
    """
    os.fdatasync(disk.blocking.fd)
    os.posix_fadvise(disk.blocking.fd, 0, 0, os.POSIX_FADV_DONTNEED)
    disk._read_flags = None


def the_ring() -> HomeRing:
    ring = ring_here()
    assert ring is not None
    return ring


def under_way() -> int:
    return len(the_ring()._under_way)


def quiet_ring() -> HomeRing:
    """Return the ring of this home, which reports no exceptions from now on."""
    ring = the_ring()
    ring._loop.set_exception_handler(lambda *_: None)
    return ring


def raise_once(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: type[Exception]
) -> list[type[Exception]]:
    """Have the first call of a function raise instead; what is returned is empty after that."""
    real = getattr(owner, name)
    left = [error]

    def function(*arguments: Any) -> Any:
        if left:
            raise left.pop()
        return real(*arguments)

    monkeypatch.setattr(owner, name, function)
    return left


@contextmanager
def held_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Have each request read a byte from a pipe before its own steps."""
    read_end, write_end = os.pipe()
    real = in_ring._steps

    def steps(*arguments: Any) -> Any:
        byte = memoryview(bytearray(1))
        yield 22, read_end, 2**64 - 1, 1, byte
        yield from real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(in_ring, "_steps", steps)
        try:
            yield lambda count=1: os.write(write_end, bytes(count))
        finally:
            os.write(write_end, bytes(1000))  # for what a test that fails has left
            os.close(read_end)
            os.close(write_end)


class Replies:
    """The replies that a peer has been sent."""

    def __init__(self, peer: Any, lengths: dict[int, int] | None = None) -> None:
        self._peer = peer
        self._lengths = lengths
        self.all: list[tuple[int, int, bytes]] = []

    def count(self) -> int:
        self.all += self._peer.replies(self._lengths)
        return len(self.all)


async def until(reached: Any) -> None:
    async with asyncio.timeout(30):
        while not reached():
            await asyncio.sleep(0.001)


def test_what_is_asked_together(in_memory: Any, image: Path):
    """Cold reads, writes that ask for stable storage, and flushes, all at once."""

    async def main() -> None:
        with FileDisk(image) as disk:
            have_reads_wait(disk)
            peer = in_memory.peer(disk)
            reads = {n: 100 + n for n in range(30)}
            asked = [peer.request(READ, n, n * 8192, length) for n, length in reads.items()]
            asked += [peer.request(WRITE, 30, 5, flags=FUA, payload=b"stable")]
            asked += [peer.request(FLUSH, 31)]
            peer.send(b"".join(asked))
            replies = Replies(peer, reads)
            await until(lambda: replies.count() == 32)
            for cookie, error, data in replies.all:
                assert error == 0
                if cookie in reads and cookie:
                    start = cookie * 8192
                    assert data == CONTENT[start : start + reads[cookie]]
            assert os.pread(disk.blocking.fd, 6, 5) == b"stable"
            assert under_way() == 0
            assert not ranges_of(disk).claims
            peer.lose()

    homebound.run(main())


def test_an_error_is_that_requests(in_memory: Any, image: Path):
    async def main() -> None:
        with FileDisk(image) as disk:
            os.truncate(image, 4096)
            peer = in_memory.peer(disk)
            peer.ask(READ, 1, 8192, 100)
            replies = Replies(peer)
            await until(replies.count)
            assert replies.all == [(1, Error.EIO, b"")]
            peer.lose()

    homebound.run(main())


def test_a_client_has_a_share(in_memory: Any, image: Path, monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        with FileDisk(image) as disk, held_up(monkeypatch) as go_on:
            peer = in_memory.peer(disk)
            peer.send(b"".join(peer.request(FLUSH, n) for n in range(50)))
            await settle()
            assert under_way() == MOST_THREADS // 4
            go_on(50)
            replies = Replies(peer)
            await until(lambda: replies.count() == 50)
            assert {cookie for cookie, error, _ in replies.all if not error} == set(range(50))
            peer.lose()

    homebound.run(main())


def test_with_many_clients_the_shares_are_smaller(
    in_memory: Any, image: Path, monkeypatch: pytest.MonkeyPatch
):
    async def main() -> None:
        with FileDisk(image) as disk, held_up(monkeypatch) as go_on:
            lane = Lane()
            peers = [in_memory.peer(disk, lane=lane) for _ in range(8)]
            for peer in peers:
                before = under_way()
                peer.send(b"".join(peer.request(FLUSH, n) for n in range(50)))
                await settle()
                share = under_way() - before
                assert share >= 1
                assert MOST_THREADS - under_way() >= share  # the next client finds as many
            go_on(8 * 50)
            replies = [Replies(peer) for peer in peers]
            await until(lambda: all(each.count() == 50 for each in replies))
            for peer in peers:
                peer.lose()

    homebound.run(main())


def test_a_write_that_was_given_up_keeps_its_claim_until_it_ends(
    in_memory: Any, image: Path, monkeypatch: pytest.MonkeyPatch
):
    async def main() -> None:
        with FileDisk(image) as disk, held_up(monkeypatch) as go_on:
            gone, other = in_memory.peer(disk), in_memory.peer(disk)
            gone.ask(WRITE, 1, 0, flags=FUA, payload=b"old" * 100)
            await settle()
            gone.connection.abort()
            gone.lose()
            await settle()
            assert not gone.lane.members
            other.ask(WRITE, 2, 150, flags=FUA, payload=b"new" * 100)
            await settle()
            assert len(ranges_of(disk).claims) == 2
            assert under_way() == 1
            go_on(2)
            replies = Replies(other)
            await until(replies.count)
            assert replies.all == [(2, 0, b"")]
            assert os.pread(disk.blocking.fd, 450, 0) == b"old" * 50 + b"new" * 100
            other.lose()

    homebound.run(main())


def test_draining_waits_for_it_and_holds_others_back(
    in_memory: Any, image: Path, monkeypatch: pytest.MonkeyPatch
):
    async def main() -> None:
        with FileDisk(image) as disk, held_up(monkeypatch) as go_on:
            peer = in_memory.peer(disk)
            peer.ask(WRITE, 1, 0, flags=FUA, payload=b"first")
            await settle()
            entered = asyncio.Event()
            leave = asyncio.Event()

            async def drain() -> None:
                async with disk.drained():
                    entered.set()
                    await leave.wait()

            section = asyncio.create_task(drain())
            await asyncio.sleep(0)
            peer.ask(WRITE, 2, 4096, flags=FUA, payload=b"second")
            await asyncio.sleep(0)
            assert not entered.is_set()
            go_on(2)
            await entered.wait()
            replies = Replies(peer)
            await until(replies.count)
            assert replies.all == [(1, 0, b"")]
            leave.set()
            await section
            await until(lambda: replies.count() == 2)
            assert replies.all[1] == (2, 0, b"")
            peer.lose()

    homebound.run(main())


@pytest.mark.parametrize("lacks", ["replies", "request", "place"])
def test_one_that_cannot_begin_is_answered(
    in_memory: Any, image: Path, monkeypatch: pytest.MonkeyPatch, lacks: str
):
    """For want of memory; the others go on, and nothing counts as a request of the disk."""

    async def main() -> None:
        with FileDisk(image) as disk:
            owner, name = {
                "replies": (slow, "new_buffer"),
                "request": (_home_ring, "address_of"),
                "place": (quiet_ring()._ring, "queue"),
            }[lacks]
            left = raise_once(monkeypatch, owner, name, MemoryError)
            have_reads_wait(disk)
            peer = in_memory.peer(disk)
            lengths = {1: 300 << 10, 2: 100}
            asked = [peer.request(READ, n, 8192, length) for n, length in lengths.items()]
            peer.send(b"".join(asked))
            replies = Replies(peer, lengths)
            await until(lambda: replies.count() == 2)
            assert sorted(reply[:2] for reply in replies.all) == [(1, Error.EIO), (2, 0)]
            assert not left
            async with disk.drained():
                assert not disk.blocking._descriptor._users
            peer.lose()

    homebound.run(main())


@pytest.mark.parametrize("when", ["before release", "before telling", "told"])
def test_an_exception_at_its_end_leaves_it_neither_counted_nor_unanswered(
    in_memory: Any, image: Path, monkeypatch: pytest.MonkeyPatch, when: str
):
    async def main() -> None:
        with FileDisk(image) as disk, held_up(monkeypatch) as go_on:
            quiet_ring()
            raised: list[str] = []
            name = "release" if when == "before release" else "tell"
            real = getattr(in_ring._InRing, name)

            def interrupted(operation: Any) -> None:
                first = not raised
                raised.append(when)
                if not first or when == "told":
                    real(operation)
                if first:
                    raise ZeroDivisionError

            monkeypatch.setattr(in_ring._InRing, name, interrupted)
            peer = in_memory.peer(disk)
            peer.send(b"".join(peer.request(WRITE, n, n, 0, b"w", FUA) for n in range(2)))
            await settle()
            go_on(2)
            replies = Replies(peer)
            await until(lambda: replies.count() == 2)
            assert sorted(replies.all) == [(0, 0, b""), (1, 0, b"")]
            async with asyncio.timeout(30), disk.drained():
                assert not ranges_of(disk).claims
            assert not disk._gate.inside
            peer.lose()

    homebound.run(main())


@pytest.mark.parametrize("where", ["submit", "call_last"])
def test_an_exception_between_two_steps_of_the_ring_leaves_none_unanswered(
    in_memory: Any, image: Path, monkeypatch: pytest.MonkeyPatch, where: str
):
    async def main() -> None:
        with FileDisk(image) as disk:
            left = raise_once(monkeypatch, quiet_ring(), where, ZeroDivisionError)
            peer = in_memory.peer(disk)
            with suppress(ZeroDivisionError):
                peer.ask(WRITE, 1, 0, flags=FUA, payload=b"w")
            replies = Replies(peer)
            await until(replies.count)
            assert replies.all == [(1, 0, b"")]
            assert not left
            async with asyncio.timeout(30), disk.drained():
                assert not ranges_of(disk).claims
            peer.lose()

    homebound.run(main())


@pytest.mark.parametrize("threads", [0, 1])
def test_a_server_that_stops_gives_up_what_is_stuck(
    in_memory: Any, image: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, threads: int
):
    async def main(io_threads: Any) -> None:
        disk = FileDisk(image)
        with held_up(monkeypatch) as go_on:
            async with NBDServer(disk, io_threads=io_threads) as server:
                await server.listen_unix(tmp_path / "socket")
                client = await in_memory.client.ready(server.uris[0])
                client.writer.write(in_memory.peer.request(WRITE, 1, 0, 0, b"stuck", FUA))
                await until(lambda: ranges_of(disk).claims)
                await server.stop(grace=0)
                assert await client.at_end()
                await client.close()
            assert ranges_of(disk).claims
            disk.close()
            os.fstat(disk.blocking.fd)  # it is still in use
            go_on()
            await until(lambda: not ranges_of(disk).claims)

            def is_closed() -> bool:
                try:
                    os.fstat(disk.blocking.fd)
                except OSError as error:
                    return error.errno == errno.EBADF
                return False

            await until(is_closed)

    pool = homebound.IOThreadPool(threads) if threads else None
    if pool is None:
        homebound.run(main(()))
    else:
        with pool:
            homebound.run(main(pool))
