"""NBDDisk on our own server, and on servers that say what the test wants."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.block import DiskClosed, DiskError, DiskReadOnly, Extent, MemoryDisk, open_disk
from homebound.nbd import (
    Export,
    NBDDisk,
    NBDServer,
    StatusExtent,
    TransmissionFlag,
    URIError,
)
from homebound.testing import Case, disk_cases, settle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZE = 1 << 20


@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize("case", disk_cases(), ids=str)
def test_it_is_a_disk(case: Case, connections: int, tmp_path: Path):
    """On our server, in a thread of its own."""

    async def serve() -> None:
        with MemoryDisk(100_001) as disk:
            async with NBDServer(disk) as server:
                await server.listen_unix(tmp_path / "s")
                listening.set()
                await over.wait()

    listening, over = threading.Event(), homebound.Event()
    with homebound.IOThread() as io:
        task = io.spawn(serve())
        listening.wait()
        uri = f"nbd+unix:///?socket={tmp_path}/s"
        try:
            case.check(lambda: NBDDisk.connect(uri, connections=connections))
        finally:
            over.set()
            homebound.block_on(asyncio.wait([task]), io.context)


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


def on_server(use: Callable[[str], Any], *, read_only: bool = False) -> None:
    async def main() -> None:
        with MemoryDisk(SIZE) as disk:
            async with NBDServer(Export(disk, read_only=read_only)) as server:
                await server.listen_tcp("127.0.0.1", 0)
                await use(server.uris[0])

    homebound.run(main())


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


def test_used_by_another_loop_and_by_threads():
    def use(disk: NBDDisk) -> bytearray:
        disk.write_sync(0, b"sync")
        return disk.read_sync(0, 4)

    async def from_elsewhere(disk: NBDDisk) -> None:
        await asyncio.gather(*(disk.write(4096 + n, bytes([n])) for n in range(100)))
        assert await disk.read(4096, 100) == bytes(range(100))

    async def main(uri: str) -> None:
        async with await NBDDisk.connect(uri) as disk:
            assert await homebound.to_worker(use, disk) == b"sync"
            await homebound.to_worker(asyncio.run, from_elsewhere(disk))
            with homebound.IOThread() as io:
                await io.spawn(from_elsewhere(disk))

    on_server(main)


def test_its_loop_may_end_before_it(tmp_path: Path):
    """The next loop that uses it becomes its home, with the same connection."""

    async def serve() -> None:
        with MemoryDisk(SIZE) as disk:
            async with NBDServer(disk) as server:
                await server.listen_unix(tmp_path / "s")
                listening.set()
                await over.wait()
                assert server.stats().connections == 1

    listening, over = threading.Event(), homebound.Event()
    with homebound.IOThread() as io:
        task = io.spawn(serve())
        listening.wait()
        disk = asyncio.run(NBDDisk.connect(f"nbd+unix:///?socket={tmp_path}/s"))
        asyncio.run(disk.write(7, b"first"))
        assert homebound.run(disk.read(7, 5)) == b"first"
        disk.close()
        over.set()
        homebound.block_on(asyncio.wait([task]), io.context)


def test_its_home_ends_while_another_waits(rude: Any, say: Any):
    async def talk(end: Any) -> None:
        await end.negotiate()
        _, cookie, *_ = await end.request()
        sent.set()
        await go_on.wait()
        end.send(say.simple(cookie, 0, b"x"))
        await end.reader.read()

    async def main() -> None:
        async with rude.talking(talk):
            with homebound.IOThread() as io:
                disk = await io.spawn(NBDDisk.connect(rude.uri))
                read = asyncio.create_task(disk.read(0, 1))
                await sent.wait()
            go_on.set()
            assert await read == b"x"
            disk.close()

    sent, go_on = asyncio.Event(), asyncio.Event()
    homebound.run(main())


def test_move_to_under_load():
    """The requests of one task come in their order, whichever home sends them."""
    over = False

    async def use(disk: NBDDisk, n: int) -> int:
        count = 0
        while not over:
            data = bytes([count % 251]) * 512
            await asyncio.gather(disk.write(n * 512, data), disk.flush())
            assert await disk.read(n * 512, 512) == data
            count += 1
        return count

    async def main(uri: str) -> None:
        nonlocal over
        with homebound.IOThreadPool(2) as threads:
            pool = list(threads)
            async with await NBDDisk.connect(uri, connections=2) as disk:
                users: list[asyncio.Task[int]] = []
                users += [homebound.create_task(use(disk, n), home=pool[n % 2]) for n in range(6)]
                users += [asyncio.create_task(use(disk, n)) for n in range(6, 8)]
                for n in range(20):
                    await disk.move_to(pool[n % 2])
                    await asyncio.sleep(0.005)
                over = True
                assert all(await asyncio.gather(*users))

    on_server(main)


def test_move_to_keeps_the_order(rude: Any, say: Any):
    order: list[int] = []

    async def talk(end: Any) -> None:
        await end.negotiate()
        while True:
            _, cookie, offset, *_ = await end.request()
            order.append(offset)
            end.send(say.simple(cookie, 0, b"x"))

    async def main() -> None:
        with homebound.IOThread() as io:
            async with rude.talking(talk):
                with await NBDDisk.connect(rude.uri) as disk:
                    tasks: list[asyncio.Task[Any]] = []
                    for n in range(300):
                        tasks.append(asyncio.create_task(disk.read(n, 1)))
                        if n == 100:
                            tasks.append(asyncio.create_task(disk.move_to(io)))
                        await asyncio.sleep(0)
                    await asyncio.gather(*tasks)
        assert order == list(range(300))

    homebound.run(main())


def test_move_to_an_ended_home():
    async def main(uri: str) -> None:
        with homebound.IOThread() as io:
            pass
        with await NBDDisk.connect(uri) as disk:
            with pytest.raises(RuntimeError):
                await disk.move_to(io)
            assert await disk.read(0, 1) == b"\0"
            with pytest.raises(TypeError, match=r"NBDDisk.move_to\(\) takes an AioContext"):
                await disk.move_to("io")  # type: ignore[arg-type]

    on_server(main)


@pytest.mark.parametrize("wakes", [1, 3])
def test_a_read_whose_task_something_else_wakes(rude: Any, say: Any, wakes: int):
    """It still ends with its reply, not before."""

    async def talk(end: Any) -> None:
        await end.negotiate()
        _, cookie, *_ = await end.request()
        sent.set()
        await go_on.wait()
        end.send(say.simple(cookie, 0, b"x"))
        await end.reader.read()

    async def main() -> None:
        async with rude.talking(talk):
            with await NBDDisk.connect(rude.uri) as disk:
                read = homebound.create_task(disk.read(0, 1))
                await sent.wait()
                for _ in range(wakes):
                    with contextlib.suppress(homebound.NotSuspended, homebound.AlreadyScheduled):
                        read.wake()
                    await settle()
                assert not read.done()
                go_on.set()
                assert await read == b"x"

    sent, go_on = asyncio.Event(), asyncio.Event()
    homebound.run(main())


class TestCancelled:
    @pytest.mark.parametrize("iterations", range(6))
    def test_no_reply_reaches_another_request(self, iterations: int):
        async def main(uri: str) -> None:
            async with await NBDDisk.connect(uri) as disk:
                for n in range(64):
                    await disk.write(n * 4096, bytes([n]) * 4096)
                for _ in range(10):
                    reads = [asyncio.create_task(disk.read(n * 4096, 4096)) for n in range(64)]
                    for _ in range(iterations):
                        await asyncio.sleep(0)
                    for read in reads[::2]:
                        read.cancel()
                    outcomes = await asyncio.gather(*reads, return_exceptions=True)
                    for n, outcome in enumerate(outcomes):
                        if n % 2 or not isinstance(outcome, asyncio.CancelledError):
                            assert outcome == bytes([n]) * 4096

        on_server(main)

    def test_a_read_ends_at_once_and_its_buffer_is_free(self, rude: Any, say: Any):
        async def talk(end: Any) -> None:
            await end.negotiate()
            _, cookie, *_ = await end.request()
            end.send(say.simple(cookie, 0, b"x" * 100_000))
            await go_on.wait()
            end.send(b"x" * 100_000)
            _, cookie, *_ = await end.request()
            end.send(say.simple(cookie, 0, b"y"))

        async def main() -> None:
            async with rude.talking(talk):
                with await NBDDisk.connect(rude.uri) as disk:
                    buffer = bytearray(200_000)
                    read = asyncio.create_task(disk.read_into(0, memoryview(buffer)))
                    while buffer[99_999] == 0:
                        await asyncio.sleep(0)
                    read.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await read
                    buffer[:] = bytes(200_000)
                    go_on.set()
                    assert await disk.read(0, 1) == b"y"
                    assert not any(buffer)

        go_on = asyncio.Event()
        homebound.run(main())

    @pytest.mark.parametrize("where", ["here", "elsewhere"])
    def test_a_write_ends_with_its_reply(self, rude: Any, say: Any, where: str):
        async def talk(end: Any) -> None:
            await end.negotiate()
            _, cookie, *_ = await end.request()
            sent.set()
            await go_on.wait()
            end.send(say.simple(cookie))
            await end.reader.read()

        async def main() -> None:
            async with rude.talking(talk):
                with await NBDDisk.connect(rude.uri) as disk, homebound.IOThread() as io:
                    home = io.context if where == "elsewhere" else homebound.current_context()
                    write = homebound.create_task(disk.write(0, b"x"), home=home)
                    await sent.wait()
                    for _ in range(3):
                        write.cancel()
                        await settle()
                    assert not write.done()
                    go_on.set()
                    with pytest.raises(asyncio.CancelledError):
                        await write

        sent, go_on = asyncio.Event(), asyncio.Event()
        homebound.run(main())

    def test_connecting(self):
        """Whenever it is cancelled, no thread and no descriptor is left."""

        async def main(uri: str) -> None:
            for n in range(40):
                opening = asyncio.create_task(NBDDisk.connect(uri, connections=3))
                for _ in range(n):
                    await asyncio.sleep(n % 4 * 0.0002)
                opening.cancel()
                try:
                    (await opening).close()
                except asyncio.CancelledError:
                    pass

        on_server(main)


def test_many_connections_in_two_homes():
    """They come and go with requests in flight; nothing is left."""

    async def use(uri: str) -> None:
        for n in range(30):
            with await NBDDisk.connect(uri) as disk:
                reads = [asyncio.create_task(disk.read(0, 100_000)) for _ in range(8)]
                if n % 2:
                    await reads[0]
                disk.close()
                for outcome in await asyncio.gather(*reads, return_exceptions=True):
                    assert isinstance(outcome, DiskClosed) or outcome == bytes(100_000)

    async def main(uri: str) -> None:
        with homebound.IOThreadPool(2) as pool:
            await asyncio.gather(*(pool.spawn(use(uri)) for _ in range(4)))

    on_server(main)


class TestClosed:
    @pytest.mark.parametrize("where", ["here", "elsewhere"])
    def test_what_waits_for_a_reply_fails(self, rude: Any, where: str):
        async def talk(end: Any) -> None:
            await end.negotiate()
            await end.request()
            sent.set()
            await end.reader.read()

        async def main() -> None:
            async with rude.talking(talk):
                disk = await NBDDisk.connect(rude.uri)
                read = asyncio.create_task(disk.read(0, 1))
                await sent.wait()
                if where == "elsewhere":
                    await homebound.to_worker(disk.close)
                else:
                    disk.close()
                with pytest.raises(DiskClosed):
                    await read
                with pytest.raises(DiskClosed):
                    await disk.read(0, 1)
                with pytest.raises(DiskClosed):
                    await disk.move_to(homebound.running_context())

        sent = asyncio.Event()
        homebound.run(main())

    def test_it_says_goodbye(self, rude: Any):
        async def talk(end: Any) -> None:
            await end.negotiate()
            said.append((await end.request())[0])
            said.append(await end.reader.read())
            over.set()

        async def main() -> None:
            async with rude.talking(talk):
                (await NBDDisk.connect(rude.uri)).close()
                await over.wait()
            assert said == [2, b""]

        said: list[object] = []
        over = asyncio.Event()
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


class TestConnecting:
    def test_by_the_old_option(self, rude: Any, say: Any):
        """A server that knows no GO."""

        async def talk_and_serve(end: Any) -> None:
            await end.greet(b"NBDMAGICIHAVEOPT\0\1")
            while True:
                number, data = await end.option()
                if number == 1:
                    break
                end.send(say.option_reply(number, 0x80000001))
            assert data == b"exp\xc3\xb6rt"
            end.send(struct.pack(">QH", SIZE, say.flags) + bytes(124))
            await end.serve(bytearray(b"z" * SIZE))

        async def main() -> None:
            async with rude.talking(talk_and_serve):
                with await NBDDisk.connect(rude.uri, export="expört") as disk:
                    assert await disk.read(5, 2) == b"zz"
                    assert disk.export == "expört"

        homebound.run(main())

    @pytest.mark.parametrize("kind", ["socket", "descriptor"])
    def test_on_a_socket_of_the_caller(self, kind: str, say: Any):
        async def main() -> None:
            ours, theirs = socket.socketpair()
            server = await asyncio.open_unix_connection(sock=theirs)
            end = say.end(*server)

            async def talk() -> None:
                await end.negotiate()
                await end.serve(bytearray(b"s" * SIZE))

            talking = asyncio.create_task(talk())
            place = ours if kind == "socket" else ours.detach()
            disk = await NBDDisk.connect(place, export="x", reconnect_delay=100)
            assert end.name == b"x"
            assert await disk.read(0, 1) == b"s"
            disk.close()
            await talking
            end.writer.close()

        homebound.run(main())

    def test_a_lost_socket_of_the_caller_is_not_replaced(self, say: Any):
        async def main() -> None:
            ours, theirs = socket.socketpair()
            end = say.end(*await asyncio.open_unix_connection(sock=theirs))
            opening = asyncio.create_task(NBDDisk.connect(ours, reconnect_delay=100))
            await end.negotiate()
            with await opening as disk:
                end.writer.close()
                for _ in range(3):
                    with pytest.raises(DiskError):
                        await disk.read(0, 1)

        homebound.run(main())

    def test_wrong_arguments(self):
        async def refused(kind: type[Exception], text: str, *args: Any, **options: Any) -> None:
            with pytest.raises(kind, match=text):
                await NBDDisk.connect(*args, **options)

        async def main() -> None:
            await refused(TypeError, "takes an NBD URI", 1.5)
            await refused(URIError, "is no NBD URI", "localhost")
            await refused(ValueError, "at least 1", "nbd://x", connections=0)
            await refused(ValueError, "reconnect_delay is -1", "nbd://x", reconnect_delay=-1)
            await refused(ValueError, "request_timeout is 0", "nbd://x", request_timeout=0)
            await refused(TypeError, "a sequence of names", "nbd://x", meta="base:allocation")
            with pytest.raises(TypeError, match="made by `await NBDDisk"):
                NBDDisk("nbd://localhost")

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
