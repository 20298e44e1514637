"""NBDDisk on our own server, and on servers that say what the test wants."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from array import array
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.block import DiskError, DiskReadOnly, Extent, MemoryDisk, open_disk
from homebound.nbd import (
    NBDDisk,
    NBDServer,
    StatusExtent,
    TransmissionFlag,
)
from homebound.nbd._protocol.wire import Command, CommandFlag
from homebound.testing import Case, disk_cases, settle

from .servers import SIZE, on_server, serving_elsewhere

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize("case", disk_cases())
def test_it_is_a_disk(case: Case, connections: int, tmp_path: Path):
    """On our server, in a thread of its own."""
    with serving_elsewhere(tmp_path / "s", 100_001) as server:
        case.check(lambda: NBDDisk.connect(server.uris[0], connections=connections))


class Cached(MemoryDisk):
    """A disk that knows no FUA, and whose writes wait until `go` is set."""

    can_fua = False
    volatile = False

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.writing, self.go = asyncio.Event(), asyncio.Event()
        self.flushes = 0

    def try_write(self, offset: int, data: bytes | bytearray | memoryview) -> bool:
        del offset, data
        return False

    async def write(
        self, offset: int, data: bytes | bytearray | memoryview, *, fua: bool = False
    ) -> None:
        self.writing.set()
        await self.go.wait()
        await super().write(offset, data, fua=fua)

    async def flush(self) -> None:
        self.flushes += 1


async def flushes_when_drained(disk: NBDDisk, served: Cached) -> int:
    async with disk.drained():
        return served.flushes


def test_on_every_loop(run: Any):
    async def main() -> None:
        with MemoryDisk(SIZE) as served:
            async with NBDServer(served) as server:
                await server.listen_tcp("127.0.0.1", 0)
                async with await NBDDisk.connect(server.uris[0]) as disk:
                    data = bytes(range(256)) * 1024
                    await disk.write(1000, data)
                    assert await disk.read(1000, len(data)) == data
                    found = await asyncio.gather(*(disk.read(1000 + n, 3) for n in range(200)))
                    assert found == [(data * 2)[n : n + 3] for n in range(200)]

    run(main())


def test_a_buffer_of_other_items_leaves_the_connection_in_order():
    """Its payload has as many bytes as the request says, or no request is sent."""

    async def main(uri: str) -> None:
        async with await NBDDisk.connect(uri) as disk:
            data = bytes(range(256)) * 256
            kinds: list[Any] = [array("I", data), memoryview(data).cast("B", (256, 256))]
            for items in kinds:
                await disk.write(512, items)
                room = memoryview(bytearray(len(data))).cast("I")
                await disk.read_into(512, room)
                assert room.tobytes() == data
            refused = memoryview(data)[::2], memoryview(data)
            for buffer in refused:
                with pytest.raises((TypeError, BufferError)):
                    await disk.read_into(0, buffer)
            with pytest.raises(BufferError):
                await disk.write(0, refused[0])
            assert await disk.read(0, 513) == bytes(512) + data[:1]
            assert disk.interruptions == 0

    on_server(main)


def test_a_server_whose_machine_has_vanished_is_noticed_within_two_minutes():
    """As a client's is: both ends of a connection have the same options."""
    names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
    if not all(hasattr(socket, name) for name in names):
        pytest.skip("this system does not tell when it looks")

    async def main() -> None:
        with MemoryDisk(SIZE) as served:
            async with NBDServer(served) as server:
                await server.listen_tcp("127.0.0.1", 0)
                async with await NBDDisk.connect(server.uris[0]) as disk:
                    sock = disk._client.channels[0].link.sock
                    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                    idle, interval, count = (
                        sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names
                    )
                    assert count >= 3
                    assert idle + interval * count <= 120

    homebound.run(main())


class TestContexts:
    def test_any_context(self, rude: Any, say: Any):
        bitmap = "qemu:dirty-bitmap:b0"

        async def talk(end: Any) -> None:
            names = {3: b"base:allocation", 4: bitmap.encode()}
            await end.negotiate(structured=True, contexts=names)
            for _ in range(2):
                _, cookie, _, length, _ = await end.request()
                body = struct.pack(">IIIII", 3, 4096, 3, length, 0)
                end.send(say.chunk(cookie, 5, body, done=False))
                end.send(say.chunk(cookie, 5, struct.pack(">III", 4, length + 4096, 1)))

        async def main() -> None:
            async with rude.talking(talk):
                with await NBDDisk.connect(rude.uri, meta=[bitmap]) as disk:
                    assert disk.contexts() == ("base:allocation", bitmap)
                    assert await disk.status(bitmap, 0, 8192) == [StatusExtent(8192, 1)]
                    assert await disk.block_status(0, 8192) == [
                        Extent(4096, hole=True, zero=True),
                        Extent(4096),
                    ]
                    with pytest.raises(ValueError, match="no metadata context 'x:y'; it has base"):
                        await disk.status("x:y", 0, 1)

        homebound.run(main())

    def test_asks_again_for_the_rest(self, rude: Any, say: Any):
        async def talk(end: Any) -> None:
            await end.negotiate(structured=True, contexts={1: b"base:allocation"})
            for n in range(4):
                _, cookie, offset, length, _ = await end.request()
                assert (offset, length) == (1000 * n, 4000 - 1000 * n)
                end.send(say.chunk(cookie, 5, struct.pack(">III", 1, 1000, n & 3)))

        async def main() -> None:
            async with rude.talking(talk):
                with await NBDDisk.connect(rude.uri) as disk:
                    found = await disk.status("base:allocation", 0, 4000)
            assert found == [StatusExtent(1000, n) for n in range(4)]

        homebound.run(main())

    def test_without_any_all_is_data(self, rude: Any):
        async def talk(end: Any) -> None:
            await end.negotiate()
            await end.reader.read()

        async def main() -> None:
            async with rude.talking(talk):
                with await NBDDisk.connect(rude.uri) as disk:
                    assert disk.contexts() == ()
                    assert await disk.block_status(5, 100) == [Extent(100)]

        homebound.run(main())


class TestWhatTheServerCannot:
    """Only what it offers is asked of it."""

    def test_nothing(self, rude: Any):
        memory = bytearray(b"x" * SIZE)

        async def talk(end: Any) -> None:
            await end.negotiate(flags=1)
            await end.serve(memory)

        async def main() -> None:
            async with rude.talking(talk):
                with await NBDDisk.connect(rude.uri, connections=4) as disk:
                    assert disk.connections == 1
                    await disk.flush()
                    await disk.trim(0, 4096)
                    await disk.cache(0, 4096)
                    await disk.write(0, b"y", fua=True)
                    await disk.write_zeroes(10, 100)
                    with pytest.raises(DiskError) as caught:
                        await disk.fast_zeroes(0, 1)
                    assert caught.value.errno == errno.ENOTSUP
            assert memory[:120] == b"y" + b"x" * 9 + bytes(100) + b"x" * 10

        homebound.run(main())

    def test_a_write_without_fua_is_flushed_within_its_request(self):
        """So the flush passes a gate that is closed by then, and the write ends."""

        async def main() -> None:
            with Cached(SIZE) as served:
                async with NBDServer(served) as server:
                    await server.listen_tcp("127.0.0.1", 0)
                    async with await NBDDisk.connect(server.uris[0]) as disk:
                        assert not disk.flags & TransmissionFlag.SEND_FUA
                        writing = asyncio.create_task(disk.write(0, b"x", fua=True))
                        await served.writing.wait()
                        draining = asyncio.create_task(flushes_when_drained(disk, served))
                        await settle()
                        assert not draining.done()
                        served.go.set()
                        assert await draining == 1
                        await writing

        homebound.run(main())

    def test_zeroes_sent_as_data_keep_fua(self, rude: Any, say: Any):
        """The server knows FUA but not WRITE_ZEROES."""
        heads: list[tuple[int, int]] = []

        async def talk(end: Any) -> None:
            flags = TransmissionFlag.HAS_FLAGS | TransmissionFlag.SEND_FLUSH
            await end.negotiate(flags=flags | TransmissionFlag.SEND_FUA, size=3 << 20)
            while True:
                flags, command, cookie, _, length, _ = await end.request_with_flags()
                if command == Command.DISC:
                    return
                heads.append((flags, length))
                end.send(say.simple(cookie))

        async def main() -> None:
            async with rude.talking(talk):
                with await NBDDisk.connect(rude.uri) as disk:
                    await disk.write_zeroes(0, 5 << 18, fua=True)
                    await disk.write_zeroes(0, 9)

        homebound.run(main())
        fua = CommandFlag.FUA
        assert heads == [(fua, 1 << 20), (fua, 1 << 18), (0, 9)]

    def test_zeroes_sent_as_data_are_flushed_once(self, rude: Any, say: Any):
        """The server knows neither FUA nor WRITE_ZEROES."""
        commands: list[int] = []

        async def talk(end: Any) -> None:
            flags = TransmissionFlag.HAS_FLAGS | TransmissionFlag.SEND_FLUSH
            await end.negotiate(flags=flags, size=3 << 20)
            while True:
                command, cookie, *_ = await end.request()
                if command == Command.DISC:
                    return
                commands.append(command)
                end.send(say.simple(cookie))

        async def main() -> None:
            async with rude.talking(talk):
                with await NBDDisk.connect(rude.uri) as disk:
                    await disk.write_zeroes(0, 5 << 18, fua=True)

        homebound.run(main())
        assert commands == [Command.WRITE, Command.WRITE, Command.FLUSH]

    def test_writes_to_what_is_read_only(self):
        async def main(uri: str) -> None:
            with await NBDDisk.connect(uri) as disk:
                assert disk.read_only
                with pytest.raises(DiskReadOnly):
                    await disk.write(0, b"x")

        on_server(main, read_only=True)

    def test_opened_read_only(self):
        async def main(uri: str) -> None:
            disk = await NBDDisk.connect(uri, read_only=True)
            with disk, pytest.raises(DiskReadOnly):
                await disk.write(0, b"x")

        on_server(main)

    def test_block_sizes(self, rude: Any, say: Any):
        sizes = struct.pack(">HIII", 3, 512, 4096, 65536)
        go = b"".join(
            (
                say.option_reply(7, 3, say.info_export(SIZE + 100)),
                say.option_reply(7, 3, sizes),
                say.option_reply(7, 1),
            )
        )

        async def talk(end: Any) -> None:
            await end.negotiate({7: go})
            await end.reader.read()

        async def main() -> None:
            async with rude.talking(talk):
                with await NBDDisk.connect(rude.uri) as disk:
                    assert disk.size == SIZE
                    assert (disk.minimum_block, disk.preferred_block) == (512, 4096)
                    assert disk.maximum_transfer == 65536
                    with pytest.raises(DiskError, match="multiples of 512 bytes only"):
                        await disk.read(1, 512)
                    with pytest.raises(DiskError, match="takes 65536 in one request"):
                        await disk.read(0, 66048)

        homebound.run(main())


def test_open_disk():
    async def main(uri: str) -> None:
        with await open_disk(uri) as disk:
            assert isinstance(disk, NBDDisk)
            await disk.write(0, b"x")
        with await open_disk(uri, read_only=True) as disk:
            assert await disk.read(0, 1) == b"x"
            assert disk.read_only
        with pytest.raises(DiskError, match="QEMU's own form"):
            await open_disk("nbd:localhost:10809")

    on_server(main)


def test_its_repr():
    async def main(uri: str) -> None:
        disk = await NBDDisk.connect(uri)
        assert repr(disk) == f"<NBDDisk {uri!r} of 1048576 bytes>"
        disk.close()
        assert repr(disk) == f"<NBDDisk {uri!r} of 1048576 bytes closed>"

    on_server(main)
