"""The server on sockets: addresses, threads, the end."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.block import Disk, MemoryDisk
from homebound.nbd import AddressInUse, Export, ExportNameError, ListenError, NBDServer
from homebound.nbd._protocol.wire import Command, Error, Option
from homebound.testing import settle

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 1 << 20
READ, WRITE, DISC = Command.READ, Command.WRITE, Command.DISC


@pytest.mark.parametrize("threads", [0, 2])
def test_serves_several_clients_over_unix_and_tcp(
    run: Any, in_memory: Any, tmp_path: Path, threads: int
):
    async def main(io_threads: Any) -> None:
        with MemoryDisk(SIZE) as disk:
            async with NBDServer(disk, io_threads=io_threads) as server:
                await server.listen_unix(tmp_path / "socket")
                await server.listen_tcp(port=0)
                unix, tcp = server.uris
                clients = [await in_memory.client.ready(uri) for uri in [unix, tcp] * 3]
                for n, client in enumerate(clients):
                    client.send(WRITE, n, n * 512, payload=bytes([n]) * 512)
                    assert await client.reply() == (n, 0, b"")
                for client in clients:
                    client.send(READ, 7, 0, 6 * 512)
                    data = b"".join(bytes([n]) * 512 for n in range(6))
                    assert await client.reply(6 * 512) == (7, 0, data)
                assert server.stats().clients == 6
                for client in clients:
                    client.send(DISC)
                    assert await client.at_end()
                    await client.close()
            stats = server.stats()
            assert (stats.clients, stats.connections, stats.requests) == (0, 6, 18)
            assert (stats.bytes_read, stats.bytes_written) == (6 * 6 * 512, 6 * 512)

    if threads:
        with homebound.IOThreadPool(threads) as pool:
            run(main(pool))
    else:
        run(main(()))


def test_connections_are_spread_over_the_threads(in_memory: Any, tmp_path: Path):
    async def main() -> None:
        with MemoryDisk(SIZE) as disk, homebound.IOThreadPool(3) as pool:
            async with NBDServer(disk, io_threads=pool) as server:
                await server.listen_unix(tmp_path / "socket")
                clients = [await in_memory.client.ready(server.uris[0]) for _ in range(6)]
                await settle()  # a client hears that it may begin before its greeter has left
                assert [len(lane.members) for _, lane in server._lanes] == [2, 2, 2]
                for client in clients:
                    await client.close()

    homebound.run(main())


class TestUnixPath:
    def test_a_socket_left_behind_is_replaced(self, in_memory: Any, tmp_path: Path):
        path = tmp_path / "socket"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))

        async def main() -> None:
            with MemoryDisk(SIZE) as disk:
                async with NBDServer(disk) as server:
                    await server.listen_unix(path)
                    await (await in_memory.client.ready(server.uris[0])).close()

        homebound.run(main())
        assert not path.exists()

    def test_a_socket_in_use_is_not_replaced(self, in_memory: Any, tmp_path: Path):
        async def main() -> None:
            with MemoryDisk(SIZE) as disk:
                async with NBDServer(disk) as server, NBDServer(disk) as second:
                    await server.listen_unix(tmp_path / "socket")
                    with pytest.raises(AddressInUse, match=r"'.*socket': it is in use"):
                        await second.listen_unix(tmp_path / "socket")
                    await (await in_memory.client.ready(server.uris[0])).close()

        homebound.run(main())

    def test_a_socket_with_a_full_backlog_is_not_replaced(self, tmp_path: Path):
        path = str(tmp_path / "socket")
        sockets = [socket.socket(socket.AF_UNIX) for _ in range(9)]
        sockets[0].bind(path)
        sockets[0].listen(0)
        for one in sockets[1:]:
            one.settimeout(0)
            one.connect_ex(path)

        async def main() -> None:
            with MemoryDisk(SIZE) as disk:
                async with NBDServer(disk) as server:
                    with pytest.raises(AddressInUse):
                        await server.listen_unix(path)

        homebound.run(main())
        for one in sockets:
            one.close()

    def test_a_file_that_is_not_a_socket_stays(self, tmp_path: Path):
        path = tmp_path / "precious"
        path.write_text("data")

        async def main() -> None:
            with MemoryDisk(SIZE) as disk:
                async with NBDServer(disk) as server:
                    with pytest.raises(ListenError, match="it exists and is not a socket"):
                        await server.listen_unix(path)

        homebound.run(main())
        assert path.read_text() == "data"

    @pytest.mark.parametrize("where", ["missing/socket", "x" * 200, "null\0"])
    def test_where_no_socket_can_be(self, tmp_path: Path, where: str):
        async def main() -> None:
            with MemoryDisk(SIZE) as disk:
                async with NBDServer(disk) as server:
                    with pytest.raises(ListenError, match=r"cannot listen on '.*': \w+"):
                        await server.listen_unix(tmp_path / where)

        homebound.run(main())

    def test_a_path_of_bytes(self, tmp_path: Path):
        async def main() -> None:
            with MemoryDisk(SIZE) as disk:
                async with NBDServer(disk) as server:
                    path: Any = bytes(tmp_path / "socket")
                    await server.listen_unix(path)
                    assert server.uris == [f"nbd+unix:///?socket={tmp_path}/socket"]

        homebound.run(main())
        assert not (tmp_path / "socket").exists()

    def test_the_socket_of_a_successor_is_not_removed(self, tmp_path: Path):
        path = tmp_path / "socket"

        async def main() -> None:
            with MemoryDisk(SIZE) as disk:
                server = NBDServer(disk)
                await server.listen_unix(path)
                path.unlink()  # another program removes it
                async with NBDServer(disk) as successor:
                    await successor.listen_unix(path)
                    await server.stop()
                    assert path.is_socket()

        homebound.run(main())


class TestTCP:
    def test_the_same_port_twice(self):
        async def main() -> None:
            with MemoryDisk(SIZE) as disk:
                async with NBDServer(disk) as server, NBDServer(disk) as second:
                    await server.listen_tcp(port=0)
                    port = int(server.uris[0].rpartition(":")[2].rstrip("/"))
                    with pytest.raises(
                        AddressInUse, match=f"on '127.0.0.1' port {port}: it is in use"
                    ):
                        await second.listen_tcp(port=port)

        homebound.run(main())

    @pytest.mark.parametrize("port", [-1, 1 << 16])
    def test_what_is_no_port(self, port: int):
        """The system takes it modulo 65536: 65536 is any free port."""

        async def main() -> None:
            with MemoryDisk(SIZE) as disk:
                async with NBDServer(disk) as server:
                    with pytest.raises(ListenError, match=f"port {port}: ports are 0 to 65535"):
                        await server.listen_tcp(port=port)

        homebound.run(main())

    @pytest.mark.parametrize("host", ["198.51.100.1", "no such host.", "a..b", "x" * 99])
    def test_hosts_that_are_not_here(self, host: str):
        async def main() -> None:
            with MemoryDisk(SIZE) as disk:
                async with NBDServer(disk) as server:
                    with pytest.raises(ListenError, match=f"cannot listen on '{host}"):
                        await server.listen_tcp(host, 0)

        homebound.run(main())

    def test_replies_are_not_held_back(self, in_memory: Any):
        async def main() -> None:
            with MemoryDisk(SIZE) as disk:
                async with NBDServer(disk) as server:
                    await server.listen_tcp(port=0)
                    client = await in_memory.client.ready(server.uris[0])
                    (member,) = server._lanes[0][1].members
                    served: Any = member
                    sock = served._transport.get_extra_info("socket")
                    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                    await client.close()

        homebound.run(main())

    def test_a_client_whose_machine_has_vanished_is_noticed_within_two_minutes(
        self, in_memory: Any
    ):
        names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
        if not all(hasattr(socket, name) for name in names):
            pytest.skip("this system does not tell when it looks")

        async def main() -> None:
            with MemoryDisk(SIZE) as disk:
                async with NBDServer(disk) as server:
                    await server.listen_tcp(port=0)
                    client = await in_memory.client.ready(server.uris[0])
                    (member,) = server._lanes[0][1].members
                    served: Any = member
                    sock = served._transport.get_extra_info("socket")
                    idle, interval, count = (
                        sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names
                    )
                    assert count >= 3  # a lost probe or two do no harm
                    assert idle + interval * count <= 120
                    if hasattr(socket, "TCP_USER_TIMEOUT"):  # it ends clients that do not read
                        assert not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
                    await client.close()

        homebound.run(main())


@pytest.mark.parametrize("io_threads", [3, "io", [None], socket])
def test_what_is_no_io_thread(io_threads: Any):
    async def main() -> None:
        with MemoryDisk(SIZE) as disk:
            with pytest.raises(TypeError, match="io_threads takes an IOThreadPool, or I/O threads"):
                NBDServer(disk, io_threads=io_threads)
            async with NBDServer({"a": disk}) as server:
                with pytest.raises(TypeError, match="io_threads takes"):
                    await server.move("a", io_threads)

    homebound.run(main())


class TestExports:
    def test_by_name_with_a_default(self, in_memory: Any, tmp_path: Path):
        async def main() -> None:
            with MemoryDisk(SIZE) as one, MemoryDisk(2 * SIZE) as two:
                exports: dict[str, Disk | Export] = {
                    "one": one,
                    "two": Export(two, "the second", read_only=True),
                }
                async with NBDServer(exports, default="two") as server:
                    await server.listen_unix(tmp_path / "a socket")
                    uri = f"nbd+unix:///two?socket={tmp_path}/a%20socket"
                    assert server.uris == [uri]
                    client = await in_memory.client.ready(uri)
                    client.send(READ, 1, 2 * SIZE - 1, 1)
                    assert await client.reply(1) == (1, 0, b"\0")
                    client.send(WRITE, 2, payload=b"x")
                    assert await client.reply() == (2, Error.EPERM, b"")
                    await client.close()

        homebound.run(main())

    def test_names_are_checked_before_anything_is_served(self):
        with MemoryDisk(SIZE) as disk, pytest.raises(ExportNameError):
            NBDServer({"a\0b": disk})


def test_a_client_that_only_reads_on_gets_its_replies(run: Any, in_memory: Any, tmp_path: Path):
    async def main() -> None:
        with MemoryDisk(8 * SIZE) as disk:
            async with NBDServer(disk) as server:
                await server.listen_unix(tmp_path / "socket")
                client = await in_memory.client.ready(server.uris[0])
                for n in range(50):
                    client.send(READ, n, 0, 128 << 10)
                client.writer.write_eof()
                for n in range(50):
                    assert await client.reply(128 << 10) == (n, 0, bytes(128 << 10))
                assert await client.at_end()
                await client.close()

    run(main())


def test_abort_is_acknowledged(in_memory: Any, tmp_path: Path):
    async def main() -> None:
        with MemoryDisk(SIZE) as disk:
            async with NBDServer(disk) as server:
                await server.listen_unix(tmp_path / "socket")
                client = await in_memory.client.connect(server.uris[0])
                await client.greeted()
                client.option(Option.ABORT)
                assert await client.option_reply() == 1
                assert await client.at_end()
                await client.close()

    homebound.run(main())


def test_repr(tmp_path: Path):
    async def main() -> None:
        with MemoryDisk(SIZE) as disk:
            async with NBDServer({"a": disk, "b": disk}) as server:
                assert repr(server) == "<NBDServer of 2 exports: not listening>"
                await server.listen_unix(tmp_path / "s")
                assert repr(server) == (
                    f"<NBDServer of 2 exports: nbd+unix:///a?socket={tmp_path}/s>"
                )

    homebound.run(main())
