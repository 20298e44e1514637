"""Exports that are found as clients ask for them, and closed with their connections."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.block import Disk, MemoryDisk
from homebound.nbd import ClientInfo, Export, NBDServer
from homebound.nbd._protocol.wire import IHAVEOPT, Command, Option, ReplyType
from homebound.nbd._server.greeter import Greeter
from homebound.testing import settle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZE = 1 << 16
READ, WRITE, DISC = Command.READ, Command.WRITE, Command.DISC


class Shelf:
    """Disks that tell when they are closed."""

    def __init__(self) -> None:
        self.searches: list[str] = []
        self.clients: list[ClientInfo] = []
        self.open: list[Disk] = []
        self.closed = asyncio.Event()

    async def find(self, name: str, client: ClientInfo) -> Export | Disk | None:
        self.searches.append(name)
        self.clients.append(client)
        if name == "broken":
            raise OSError(5, "the shelf has fallen")
        if name == "wrong":
            return "disk.img"  # type: ignore[return-value]
        return None if name == "none" else self.make()

    def make(self) -> Disk:
        disk = Told(self)
        self.open.append(disk)
        return disk

    async def list(self) -> list[str | tuple[str, str]]:
        return ["a", ("b", "the other one")]


class Told(MemoryDisk):
    """A disk that tells when it is closed."""

    def __init__(self, shelf: Any) -> None:
        super().__init__(SIZE)
        self.shelf = shelf

    def close(self) -> None:
        super().close()
        if self in self.shelf.open:
            self.shelf.open.remove(self)
            loop.call_soon_threadsafe(self.shelf.closed.set)


loop: Any = None


async def ask(client: Any, option: int, name: bytes) -> list[tuple[int, bytes]]:
    """Send INFO, GO or LIST; return the replies to it."""
    data = b"" if option == Option.LIST else struct.pack(">I", len(name)) + name + b"\0\0"
    client.option(option, data)
    replies: list[tuple[int, bytes]] = []
    while not replies or replies[-1][0] in {ReplyType.INFO, ReplyType.SERVER}:
        _, _, kind, length = struct.unpack(">QIII", await client.reader.readexactly(20))
        replies.append((kind, await client.reader.readexactly(length)))
    return replies


@pytest.fixture
def serving(run: Any, in_memory: Any, tmp_path: Path) -> Callable[..., None]:
    """Run a coroutine function with a server of `exports()`, and with clients of it."""

    def serve(exports: Callable[[], Any], test: Any, **options: Any) -> None:
        async def main() -> None:
            global loop  # noqa: PLW0603
            loop = asyncio.get_running_loop()
            found = exports()

            async def connect() -> Any:
                client = await in_memory.client.connect(server.uris[0])
                await client.greeted()
                return client

            async with NBDServer(found, **options) as server:
                await server.listen_unix(tmp_path / "socket")
                await test(found, connect, server)
            assert not getattr(found, "open", ())

        run(main())

    return serve


def test_a_disk_for_each_connection(serving: Any):
    async def test(shelf: Shelf, connect: Any, _: NBDServer) -> None:
        clients = [await connect() for _ in range(2)]
        for number, client in enumerate(clients):
            await ask(client, Option.GO, b"x")
            client.send(WRITE, 1, 0, payload=bytes([number + 1]) * 512)
            assert await client.reply() == (1, 0, b"")
        for number, client in enumerate(clients):
            client.send(READ, 2, 0, 512)
            assert await client.reply(512) == (2, 0, bytes([number + 1]) * 512)
        assert (shelf.searches, len(shelf.open)) == (["x", "x"], 2)
        await clients[0].vanish()
        await shelf.closed.wait()
        assert len(shelf.open) == 1
        clients[1].send(DISC)
        assert await clients[1].at_end()
        await clients[1].close()

    serving(Shelf, test)


def test_info_and_go_search_once(serving: Any):
    async def test(shelf: Shelf, connect: Any, _: NBDServer) -> None:
        client = await connect()
        first = await ask(client, Option.INFO, b"x")
        assert await ask(client, Option.INFO, b"x") == first
        assert await ask(client, Option.GO, b"x") == first
        assert shelf.searches == ["x"]
        await client.close()

    serving(Shelf, test)


def test_another_name_closes_what_was_found_first(serving: Any):
    async def test(shelf: Shelf, connect: Any, _: NBDServer) -> None:
        client = await connect()
        await ask(client, Option.INFO, b"x")
        (first,) = shelf.open
        await ask(client, Option.GO, b"y")
        assert len(shelf.open) == 1
        assert first not in shelf.open
        await client.close()

    serving(Shelf, test)


def test_the_list(serving: Any):
    async def test(shelf: Shelf, connect: Any, _: NBDServer) -> None:
        client = await connect()
        for _again in range(2):
            replies = await ask(client, Option.LIST, b"")
            assert [kind for kind, _ in replies] == [ReplyType.SERVER, ReplyType.SERVER, 1]
            assert replies[0][1] == b"\0\0\0\1a"
            assert replies[1][1] == b"\0\0\0\1bthe other one"
        assert shelf.searches == []
        await client.close()

    serving(Shelf, test)


class NoList:
    async def find(self, name: str, client: ClientInfo) -> None:
        del name, client


class PlainList(NoList):
    def list(self) -> list[str]:
        return ["plain"]


class BrokenList(NoList):
    def list(self) -> list[Any]:
        return [7]


def told(errors: list[dict[str, Any]]) -> None:
    loop.set_exception_handler(lambda _, context: errors.append(context))


@pytest.mark.parametrize(
    ("exports", "kinds"),
    [
        (NoList, [ReplyType.ACK]),
        (PlainList, [ReplyType.SERVER, ReplyType.ACK]),
        (BrokenList, [ReplyType.ERR_PLATFORM]),
    ],
)
def test_other_lists(serving: Any, exports: Any, kinds: list[ReplyType]):
    async def test(_: Any, connect: Any, _server: NBDServer) -> None:
        errors: list[dict[str, Any]] = []
        told(errors)
        client = await connect()
        assert [kind for kind, _ in await ask(client, Option.LIST, b"")] == kinds
        assert len(errors) == (kinds[0] == ReplyType.ERR_PLATFORM)
        await client.close()

    serving(exports, test)


def test_no_such_export_and_failures(serving: Any, caplog: pytest.LogCaptureFixture):
    """The client goes on after an error, and a report is logged."""

    async def test(shelf: Shelf, connect: Any, _: NBDServer) -> None:
        errors: list[dict[str, Any]] = []
        told(errors)
        client = await connect()
        ((kind, text),) = await ask(client, Option.INFO, b"none")
        assert (kind, text) == (ReplyType.ERR_UNKNOWN, b"no export is named 'none'")
        ((kind, text),) = await ask(client, Option.GO, b"broken")
        assert kind == ReplyType.ERR_PLATFORM
        assert text == b"export 'broken' could not be opened: the shelf has fallen"
        ((kind, text),) = await ask(client, Option.GO, b"wrong")
        assert (kind, text) == (ReplyType.ERR_PLATFORM, b"export 'wrong' could not be opened")
        assert "finding export 'broken'" in caplog.messages[0]
        assert shelf.clients[0].name in caplog.messages[0]
        assert "find('wrong') must return a Disk, an Export or None" in errors[0]["message"]
        await ask(client, Option.GO, b"right")
        await client.close()

    serving(Shelf, test)


@pytest.mark.parametrize("failure", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_a_failure_that_is_no_exception(in_memory: Any, tmp_path: Path, failure: BaseException):
    """It ended the I/O thread, and with it the service for all clients there."""

    class Ending(Shelf):
        async def find(self, name: str, _: ClientInfo) -> Export | Disk | None:
            if name == "ending":
                raise failure
            return MemoryDisk(SIZE)

        async def list(self) -> Any:
            raise failure

    async def main() -> None:
        with homebound.IOThread() as io:
            async with NBDServer(Ending(), io_threads=io) as server:
                await server.listen_unix(tmp_path / "socket")
                client = await in_memory.client.connect(server.uris[0])
                await client.greeted()
                for option in (Option.LIST, Option.INFO, Option.GO):
                    ((kind, _),) = await ask(client, option, b"ending")
                    assert kind == ReplyType.ERR_PLATFORM
                assert (await ask(client, Option.GO, b"right"))[-1][0] == ReplyType.ACK
                await client.close()

    homebound.run(main())


def test_an_interrupt_in_the_main_thread_goes_on(tmp_path: Path):
    """It may be Ctrl-C; the client has its reply all the same."""

    class Interrupted(Shelf):
        async def find(self, *_: object) -> Export | Disk | None:
            raise KeyboardInterrupt

    async def main(client: socket.socket) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        async with NBDServer(Interrupted()) as server:
            await server.listen_unix(tmp_path / "socket")
            client.connect(str(tmp_path / "socket"))
            client.sendall(struct.pack(">IQIIIH", 3, IHAVEOPT, Option.GO, 6, 0, 0))
            await asyncio.sleep(10)

    with socket.socket(socket.AF_UNIX) as client:
        with pytest.raises(KeyboardInterrupt):
            homebound.run(main(client))
        received = client.recv(4096)
    assert struct.unpack_from(">I", received, 18 + 12) == (ReplyType.ERR_PLATFORM,)


def test_export_name_of_none_disconnects(serving: Any):
    async def test(_: Shelf, connect: Any, _server: NBDServer) -> None:
        told([])
        for name in (b"none", b"broken"):
            client = await connect()
            client.option(Option.EXPORT_NAME, name)
            assert await client.at_end()
            await client.close()

    serving(Shelf, test)


def test_export_name(serving: Any):
    async def test(_: Shelf, connect: Any, _server: NBDServer) -> None:
        client = await connect()
        client.option(Option.EXPORT_NAME, b"x")
        assert struct.unpack(">QH", await client.reader.readexactly(10))[0] == SIZE
        await client.close()

    serving(Shelf, test)


class Slow(Shelf):
    """A search that ends when it is told to; it may put off its cancellation until then."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.go_on = asyncio.Event()

    async def find(self, name: str, client: ClientInfo) -> Disk:
        del client
        self.begun.set()
        while not self.go_on.is_set():
            try:
                await self.go_on.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                if name != "stubborn":
                    raise
        return self.make()


@pytest.mark.parametrize("name", [b"", b"stubborn"])
def test_a_client_that_vanishes_during_a_search(serving: Any, name: bytes):
    async def test(slow: Slow, connect: Any, server: NBDServer) -> None:
        client = await connect()
        client.option(Option.GO, struct.pack(">I", len(name)) + name + b"\0\0")
        await slow.begun.wait()
        await client.vanish()
        await slow.cancelled.wait()
        slow.go_on.set()
        while server.stats().clients:
            await asyncio.sleep(0.001)
        assert not slow.open

    serving(Slow, test, find_timeout=None)


def test_a_search_that_takes_too_long(serving: Any, caplog: pytest.LogCaptureFixture):
    async def test(slow: Slow, connect: Any, _: NBDServer) -> None:
        client = await connect()
        assert (await ask(client, Option.GO, b"x"))[0][0] == ReplyType.ERR_PLATFORM
        assert caplog.messages[0].endswith("failed: not done in 0.01 s")
        slow.go_on.set()
        await ask(client, Option.INFO, b"y")
        await client.close()

    serving(Slow, test, find_timeout=0.01)


def test_a_search_is_not_in_the_time_of_the_handshake(serving: Any):
    async def test(slow: Slow, connect: Any, server: NBDServer) -> None:
        client = await connect()
        asking = asyncio.ensure_future(ask(client, Option.GO, b"x"))
        await slow.begun.wait()
        (member,) = server._lanes[0][1].members
        assert isinstance(member, Greeter)
        assert member._timer.cancelled()
        slow.go_on.set()
        assert (await asking)[-1][0] == ReplyType.ACK
        await client.close()

    serving(Slow, test)


def test_a_stop_during_a_search(serving: Any):
    async def test(slow: Slow, connect: Any, server: NBDServer) -> None:
        client = await connect()
        client.option(Option.GO, b"\0\0\0\0\0\0")
        await slow.begun.wait()
        await server.stop()
        assert slow.cancelled.is_set()
        await client.close()

    serving(Slow, test)


def test_a_disk_that_is_shared(serving: Any):
    """`on_close` is called in place of `close`."""

    class Shared(Shelf):
        async def find(self, name: str, client: ClientInfo) -> Export:
            del name, client
            if not self.open:
                self.make()
            return Export(self.open[0], on_close=self.left)

        def left(self) -> None:
            loop.call_soon_threadsafe(self.closed.set)

    async def test(shelf: Shared, connect: Any, _: NBDServer) -> None:
        clients = [await connect() for _ in range(2)]
        for client in clients:
            await ask(client, Option.GO, b"")
        await clients[0].vanish()
        await shelf.closed.wait()
        clients[1].send(READ, 1, 0, 512)
        assert await clients[1].reply(512) == (1, 0, bytes(512))
        await clients[1].close()
        shelf.open.pop().close()

    serving(Shared, test)


def test_the_default(serving: Any):
    async def test(shelf: Shelf, connect: Any, _: NBDServer) -> None:
        client = await connect()
        await ask(client, Option.GO, b"")
        assert shelf.searches == ["main"]
        await client.close()

    serving(Shelf, test, default="main")


def test_a_client_on_a_unix_socket_and_its_disconnection(serving: Any):
    async def test(shelf: Shelf, connect: Any, _: NBDServer) -> None:
        for force in (False, True):
            client = await connect()
            await ask(client, Option.GO, b"")
            info = shelf.clients[-1]
            assert info.process
            assert info.user is not None
            assert info.name == f"process {info.process}, user {info.user}"
            assert (info.tls, info.tls_subject) == (False, None)
            info.disconnect(force=force)
            assert await client.at_end()
            await client.close()

    serving(Shelf, test)


def test_a_client_on_tcp(in_memory: Any):
    async def main() -> None:
        global loop  # noqa: PLW0603
        loop = asyncio.get_running_loop()
        shelf = Shelf()
        with homebound.IOThread() as io:
            async with NBDServer(shelf, io_threads=[io]) as server:
                await server.listen_tcp(port=0)
                client = await in_memory.client.ready(server.uris[0])
                host, port = client.writer.get_extra_info("sockname")
                assert shelf.clients[0].name == f"{host}:{port}"
                assert shelf.clients[0].address == (host, port)
                await client.close()
            await settle()
            assert not shelf.open

    homebound.run(main())


def test_a_flood_of_names_keeps_one_disk(serving: Any):
    async def test(shelf: Shelf, connect: Any, _: NBDServer) -> None:
        client = await connect()
        for number in range(300):
            name = f"n{number}".encode()
            client.option(Option.INFO, struct.pack(">I", len(name)) + name + b"\0\0")
        await ask(client, Option.GO, b"last")  # reads the first reply
        for _reply in range(300):
            while await client.option_reply() != ReplyType.ACK:
                pass
        assert shelf.searches[-1] == "last"
        assert len(shelf.open) == 1
        await client.close()

    serving(Shelf, test)


def test_what_is_no_export():
    with pytest.raises(TypeError, match="an object with `async def find"):
        NBDServer(object())  # type: ignore[arg-type]
