"""BLOCK_STATUS, READs in parts, CACHE and FAST_ZERO: in memory, and by other programs' clients."""

from __future__ import annotations

import asyncio
import errno
import json
import random
import struct
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.block import DiskError, Extent, FileDisk, MemoryDisk, OverlayDisk, SliceDisk
from homebound.nbd import NBDServer
from homebound.nbd._protocol.transmission import MAX_EXTENTS
from homebound.nbd._protocol.wire import ChunkType, Command, CommandFlag, Error
from homebound.nbd._server.extents import GRAIN, Step
from homebound.nbd._server.in_flight import MAX_STARTED
from homebound.testing import settle, until

from .peers import peer as run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

READ, STATUS = Command.READ, Command.BLOCK_STATUS
CONTEXTS = {"base:allocation"}
HOLE = 3  # and zero
DONE = 1
SIZE = 64 << 20


Chunk = tuple[int, int, int, bytes]  # flags, type, cookie and contents


def chunks(peer: Any) -> list[Chunk]:
    data, at, found = peer.raw(), 0, []
    while at < len(data):
        magic, flags, kind, cookie, length = struct.unpack_from(">IHHQI", data, at)
        assert magic == 0x668E33EF
        at += 20 + length
        found.append((flags, kind, cookie, data[at - length : at]))
    assert at == len(data)
    return found


def only(peer: Any) -> tuple[int, bytes]:
    ((flags, kind, _, body),) = chunks(peer)
    assert flags == DONE
    return kind, body


def extents(peer: Any) -> list[tuple[int, int]]:
    kind, body = only(peer)
    assert kind == ChunkType.BLOCK_STATUS
    assert body[:4] == struct.pack(">I", 1)
    return list(struct.iter_unpack(">II", body[4:]))


def failure(peer: Any) -> int:
    kind, body = only(peer)
    assert kind == ChunkType.ERROR
    return int(struct.unpack_from(">I", body)[0])


class Patchy(MemoryDisk):
    """Every second 4 KiB is a hole, as far as its extents tell."""

    asked = 0

    async def block_status(self, offset: int, length: int) -> list[Extent]:
        self.check_range(offset, length)
        self.asked += length
        found, end = [], offset + length
        while offset < end:
            step = min(end, (offset // 4096 + 1) * 4096) - offset
            odd = bool(offset // 4096 % 2)
            found.append(Extent(step, hole=odd, zero=odd))
            offset += step
        return found


class Counting(MemoryDisk):
    """A gigabyte of zeroes that notes each question."""

    def __init__(self) -> None:
        super().__init__(4096)
        self.size = 1 << 30
        self.asked: list[tuple[int, int]] = []

    async def block_status(self, offset: int, length: int) -> list[Extent]:
        self.asked.append((offset, length))
        return [Extent(length, hole=True, zero=True)]


class Huge(MemoryDisk):
    """A terabyte of zeroes."""

    def __init__(self) -> None:
        super().__init__(4096)
        self.size = 1 << 40

    async def block_status(self, offset: int, length: int) -> list[Extent]:
        self.check_range(offset, length)
        return [Extent(length, hole=True, zero=True)]


@pytest.fixture
def client(in_memory: Any) -> Any:
    def connect(disk: MemoryDisk) -> Any:
        return in_memory.peer(disk, structured=True, contexts=CONTEXTS)

    return connect


class TestStatus:
    def test_of_memory(self, client: Any):
        async def main() -> None:
            with MemoryDisk(SIZE) as disk:
                await disk.write(1 << 20, b"x" * (1 << 20))
                peer = client(disk)
                peer.ask(STATUS, 1, 0, SIZE)
                await settle()
                assert extents(peer) == [(1 << 20, HOLE), (1 << 20, 0), (SIZE - (2 << 20), HOLE)]
                peer.ask(STATUS, 1, 100, SIZE - 100, flags=CommandFlag.REQ_ONE)
                await settle()
                assert extents(peer) == [((1 << 20) - 100, HOLE)]

        homebound.run(main())

    def test_refusals_are_chunks(self, client: Any):
        async def main() -> None:
            with MemoryDisk(SIZE) as disk:
                peer = client(disk)
                for offset, length in ((0, 0), (SIZE, 1), (SIZE - 1, 2), (0, 2**32 - 1)):
                    peer.ask(STATUS, 1, offset, length)
                    await settle()
                    assert failure(peer) == Error.EINVAL

        homebound.run(main())

    def test_the_last_byte(self, client: Any):
        async def main() -> None:
            with MemoryDisk(SIZE) as disk:
                peer = client(disk)
                peer.ask(STATUS, 1, SIZE - 1, 1)
                await settle()
                assert extents(peer) == [(1, HOLE)]

        homebound.run(main())

    def test_nearly_four_gigabytes_in_one_extent(self, client: Any):
        async def main() -> None:
            with Huge() as disk:
                peer = client(disk)
                peer.ask(STATUS, 1, 1 << 39, 2**32 - 1)
                await settle()
                assert extents(peer) == [(2**32 - 1, HOLE)]

        homebound.run(main())

    def test_alternating_holes(self, client: Any):
        async def main() -> None:
            with Patchy(SIZE) as disk:
                peer = client(disk)
                peer.ask(STATUS, 1, 0, SIZE // 4)
                await settle()
                assert extents(peer) == [(4096, 0), (4096, HOLE)] * (SIZE // 4 // 8192)

        homebound.run(main())

    def test_a_reply_has_a_limit(self, client: Any):
        async def main() -> None:
            with Patchy(4096) as disk:
                disk.size = 1 << 33
                peer = client(disk)
                peer.ask(STATUS, 1, 0, (1 << 32) - 1)
                await settle()
                found = extents(peer)
                assert found == [(4096, 0), (4096, HOLE)] * (MAX_EXTENTS // 2)
                assert disk.asked < 2 * MAX_EXTENTS * 4096

        homebound.run(main())

    def test_one_extent_asks_the_disk_for_little(self, client: Any):
        async def main() -> None:
            with Patchy(4096) as disk:
                disk.size = 1 << 40
                peer = client(disk)
                peer.ask(STATUS, 1, 5, 2**32 - 1, flags=CommandFlag.REQ_ONE)
                await settle()
                assert extents(peer) == [(4091, 0)]
                assert disk.asked <= 1 << 20

        homebound.run(main())

    def test_the_next_request_asks_for_as_much_as_the_last_could(self, client: Any):
        async def main() -> None:
            with Counting() as disk:
                peer = client(disk)
                for n in range(4):
                    peer.ask(STATUS, 1, n << 27, 1 << 27)
                    await settle()
                    assert extents(peer) == [(1 << 27, HOLE)]
                mib = [(1, 0), (8, 1), (64, 9), (55, 73), *((128, 128 * n) for n in (1, 2, 3))]
                assert disk.asked == [(at << 20, length << 20) for length, at in mib]

        homebound.run(main())

    def test_after_many_extents_it_asks_for_less(self, client: Any):
        async def main() -> None:
            with Patchy(4096) as disk:
                disk.size = 1 << 40
                vars(disk)["_nbd_step"] = step = Step()
                for _ in range(3):
                    step.adapt(1 << 20, 1)
                peer = client(disk)
                for most in (1 << 27, 2 * MAX_EXTENTS * 4096):
                    disk.asked = 0
                    peer.ask(STATUS, 1, 0, 1 << 27)
                    await settle()
                    assert len(extents(peer)) == MAX_EXTENTS
                    assert disk.asked <= most

        homebound.run(main())

    def test_one_hole_of_a_file_takes_no_worker(self, in_memory: Any, tmp_path: Path):
        image = tmp_path / "image"
        with image.open("wb") as file:
            file.truncate(SIZE)
            file.write(b"x")

        async def main() -> None:
            with FileDisk(image) as disk:
                if disk.blocking.nowait is None:
                    pytest.skip("not a local file system")
                until(lambda: disk.try_hole(1 << 20, 1 << 20))
                disk.block_status = None  # type: ignore[assignment, method-assign]  # not asked
                peer = in_memory.peer(disk, structured=True, contexts=CONTEXTS)
                peer.ask(STATUS, 1, 1 << 20, SIZE - (1 << 20))
                await settle()
                assert extents(peer) == [(SIZE - (1 << 20), HOLE)]

        homebound.run(main())

    def test_a_disk_that_fails(self, client: Any):
        class Failing(MemoryDisk):
            async def block_status(self, offset: int, length: int) -> list[Extent]:
                del offset, length
                raise DiskError(errno.EIO, "medium error")

        async def main() -> None:
            with Failing(SIZE) as disk:
                peer = client(disk)
                peer.ask(STATUS, 1, 0, SIZE)
                await settle()
                assert failure(peer) == Error.EIO

        homebound.run(main())

    def test_a_disk_that_tells_of_another_range(self, client: Any):
        class Wrong(MemoryDisk):
            async def block_status(self, offset: int, length: int) -> list[Extent]:
                return [Extent(length + offset + 1)]

        async def main() -> None:
            reports: list[Any] = []
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: reports.append(context["exception"]))
            with Wrong(SIZE) as disk:
                peer = client(disk)
                peer.ask(STATUS, 1, 0, 4096)
                await settle()
                assert failure(peer) == Error.EIO
            assert "tells of 4097 bytes, not of 4096" in str(reports)

        homebound.run(main())

    @pytest.mark.parametrize("how", ["lose", "abort"])
    def test_those_that_nobody_waits_for_any_more_end(self, client: Any, how: str):
        class Waiting(MemoryDisk):
            async def block_status(self, offset: int, length: int) -> list[Extent]:
                await go_on.wait()
                return await super().block_status(offset, length)

        async def main() -> None:
            with Waiting(SIZE) as disk:
                peer = client(disk)
                for cookie in range(2 * MAX_STARTED):
                    peer.ask(STATUS, cookie, 0, SIZE)
                await settle()
                if how == "abort":  # as the server does at its end; then the transport tells
                    peer.connection.abort()
                peer.lose()
                go_on.set()
                await settle()
                assert peer.lane.ended == 1

        go_on = asyncio.Event()
        homebound.run(main())

    def test_replies_that_are_not_read_are_limited(self, in_memory: Any):
        async def main() -> None:
            with Patchy(1 << 20) as disk:
                disk.size = 1 << 33
                peer = in_memory.peer(disk, room=0, structured=True, contexts=CONTEXTS)
                for cookie in range(200):
                    peer.ask(STATUS, cookie, 0, 64 << 20)
                await settle()
                held = peer.connection._outbox.unsent
                assert 0 < held < 200 * 8 * MAX_EXTENTS
                peer.transport.drain()
                while len(peer.transport.sent) < 200 * 8 * MAX_EXTENTS:
                    await settle()
                    peer.send(b"")
                assert sorted(chunk[2] for chunk in chunks(peer)) == list(range(200))

        homebound.run(main())


def assembled(peer: Any, offset: int, length: int) -> tuple[bytes, int]:
    """Put the chunks of a READ together; return the data, and how many bytes were left out."""
    data, left_out, filled = bytearray(b"?" * length), 0, 0
    found = chunks(peer)
    assert [flags for flags, *_ in found] == [0] * (len(found) - 1) + [DONE]
    for _, kind, _, body in found:
        if kind == ChunkType.NONE:
            continue
        (at,) = struct.unpack_from(">Q", body)
        if kind == ChunkType.OFFSET_HOLE:
            (size,) = struct.unpack_from(">I", body, 8)
            content = bytes(size)
            left_out += size
        else:
            assert kind == ChunkType.OFFSET_DATA
            content = body[8:]
        assert content
        assert 0 <= at - offset <= length - len(content)
        filled += len(content)
        data[at - offset : at - offset + len(content)] = content
    assert filled == length  # so no two chunks overlap
    return bytes(data), left_out


class TestRead:
    LENGTH = 32 << 20

    def test_all_holes(self, client: Any):
        async def main() -> None:
            with MemoryDisk(SIZE) as disk:
                peer = client(disk)
                peer.ask(READ, 1, 5, self.LENGTH)
                await settle()
                assert assembled(peer, 5, self.LENGTH) == (bytes(self.LENGTH), self.LENGTH)
                peer.ask(READ, 1, 5, self.LENGTH, flags=CommandFlag.DF)
                await settle()
                assert only(peer) == (
                    ChunkType.OFFSET_DATA,
                    struct.pack(">Q", 5) + bytes(self.LENGTH),
                )

        homebound.run(main())

    def test_like_the_disk(self, client: Any):
        async def main() -> None:
            rng = random.Random(7)
            with MemoryDisk(SIZE) as disk:
                for _ in range(40):
                    offset = rng.randrange(SIZE - (1 << 20))
                    await disk.write(offset, rng.randbytes(rng.randint(1, 1 << 19)))
                peer = client(disk)
                for _ in range(10):
                    offset = rng.randrange(SIZE - self.LENGTH)
                    length = rng.randint(4 << 20, self.LENGTH)
                    peer.ask(READ, 1, offset, length)
                    await settle()
                    data, _ = assembled(peer, offset, length)
                    assert data == await disk.read(offset, length)

        homebound.run(main())

    def test_short_zeroes_are_data(self, client: Any):
        async def main() -> None:
            with Patchy(SIZE) as disk:
                peer = client(disk)
                peer.ask(READ, 1, 0, self.LENGTH)
                await settle()
                assert assembled(peer, 0, self.LENGTH) == (bytes(self.LENGTH), 0)

        homebound.run(main())

    def test_a_failure_in_the_middle(self, client: Any):
        class Failing(MemoryDisk):
            def try_read_into(self, offset: int, buffer: memoryview) -> bool:
                del offset, buffer
                return False

            async def block_status(self, offset: int, length: int) -> list[Extent]:
                part = (length - offset) // 4
                zero = Extent(part, hole=True, zero=True)
                return [Extent(part), zero, Extent(part), Extent(length - 3 * part, zero=True)]

            async def read_into(self, offset: int, buffer: memoryview) -> None:
                del buffer
                if offset:
                    raise DiskError(errno.EIO, "medium error")

        async def main() -> None:
            with Failing(SIZE) as disk:
                peer = client(disk)
                peer.ask(READ, 1, 0, self.LENGTH)
                await settle()
                *parts, last = chunks(peer)
                part = self.LENGTH // 4
                assert [(flags, kind) for flags, kind, *_ in parts] == [
                    (0, ChunkType.OFFSET_DATA),
                    (0, ChunkType.OFFSET_HOLE),
                ]
                body = struct.pack(">IHQ", Error.EIO, 0, 2 * part)
                assert last == (DONE, ChunkType.ERROR_OFFSET, 1, body)
                assert part > GRAIN

        homebound.run(main())


def test_cache_and_fast_zero(in_memory: Any):
    class Slow(MemoryDisk):
        async def fast_zeroes(
            self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
        ) -> None:
            del offset, length, fua, no_hole
            raise DiskError(errno.ENOTSUP, "not quick")

    async def main() -> None:
        for make, error in ((MemoryDisk, 0), (Slow, Error.ENOTSUP)):
            with make(1 << 20) as disk:
                await disk.write(0, b"x" * 4096)
                peer = in_memory.peer(disk)
                peer.ask(Command.CACHE, 1, 0, 1 << 20)
                peer.ask(Command.WRITE_ZEROES, 2, 0, 4096, flags=CommandFlag.FAST_ZERO)
                peer.ask(Command.CACHE, 3, 1 << 20, 1)
                await settle()
                assert sorted(peer.replies()) == [(1, 0, b""), (2, error, b""), (3, 22, b"")]
                assert await disk.read(0, 4096) == (b"x" if error else b"\0") * 4096

    homebound.run(main())


@pytest.fixture(params=["file", "memory", "overlay", "slice"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """32 MiB: 1 MiB of data at 4 MiB, the rest holes."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(32 << 20)
    below: Any = {"memory": lambda: MemoryDisk(32 << 20), "slice": lambda: MemoryDisk(48 << 20)}
    below = below.get(request.param, lambda: FileDisk(image))()
    with below:
        disk = below
        if request.param == "overlay":
            disk = OverlayDisk(below)
        elif request.param == "slice":
            disk = SliceDisk(below, 8 << 20, 32 << 20)
        with disk:
            homebound.run(disk.write(4 << 20, random.Random(3).randbytes(1 << 20)))
            yield disk


@pytest.mark.peers
@pytest.mark.parametrize("threads", [0, 2])
def test_other_clients_see_it(disk: Any, tmp_path: Path, threads: int):
    async def main() -> None:
        content = await disk.read(0, disk.size)
        with homebound.IOThreadPool(max(threads, 1)) as pool:
            async with NBDServer(disk, io_threads=pool if threads else ()) as server:
                await server.listen_unix(tmp_path / "socket")
                uri = server.uris[0]
                mapped = json.loads(await run("nbdinfo", "--map", "--json", uri))
                assert [(each["offset"], each["length"], each["type"]) for each in mapped] == [
                    (0, 4 << 20, 3),
                    (4 << 20, 1 << 20, 0),
                    (5 << 20, 27 << 20, 3),
                ]
                for what in ("cache", "df", "fast-zero", "multi-conn", "zero", "structured"):
                    await run("nbdinfo", "--can", what, uri)
                assert "1048576" in await run("nbdinfo", "--map", "--totals", uri)
                listed = json.loads(await run("qemu-img", "map", "--output=json", "-f", "raw", uri))
                assert [each["data"] for each in listed] == [False, True, False]
                out = tmp_path / "out"
                for connections in ("1", "4"):
                    await run("nbdcopy", f"--connections={connections}", uri, str(out))
                    assert out.read_bytes() == content
                await run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", uri, str(out))
                await run("qemu-img", "compare", "-f", "raw", "-F", "raw", uri, str(out))

    homebound.run(main())
