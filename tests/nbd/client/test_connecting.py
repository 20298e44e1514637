"""Connecting: what is said in the handshake, whose socket it is, and how long a try may take."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.block import DiskError, MemoryDisk
from homebound.nbd import ConnectError, NBDDisk, NBDServer, URIError

from .servers import SIZE, serving

if TYPE_CHECKING:
    from pathlib import Path


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

    @pytest.mark.parametrize("wrong", ["x" * 5000, "a\0b", "\ud800"])
    def test_a_metadata_context_that_the_protocol_cannot_carry(self, tmp_path: Path, wrong: str):
        async def main() -> None:
            with MemoryDisk(4096) as disk:
                async with NBDServer(disk) as server:
                    await server.listen_unix(tmp_path / "s")
                    with pytest.raises(ConnectError, match=": metadata context '"):
                        await NBDDisk.connect(server.uris[0], meta=[wrong])

        homebound.run(main())


class TestOpening:
    def test_fails_at_once(self, tmp_path: Path):
        async def main() -> None:
            with pytest.raises(ConnectError, match="No such file") as caught:
                await NBDDisk.connect(f"nbd+unix:///?socket={tmp_path}/none")
            assert caught.value.errno == errno.ENOENT

        homebound.run(main())

    @pytest.mark.parametrize("host", ["a..b", "x" * 99])
    def test_what_no_host_can_be_named(self, host: str):
        async def main() -> None:
            with pytest.raises(ConnectError, match=f"'{host}' is no name of a host"):
                await NBDDisk.connect(f"nbd://{host}/")

        homebound.run(main())

    def test_fails_after_the_timeout_with_the_last_error(self, tmp_path: Path):
        async def main() -> None:
            began = time.monotonic()
            with pytest.raises(ConnectError, match="No such file"):
                await NBDDisk.connect(f"nbd+unix:///?socket={tmp_path}/none", open_timeout=0.5)
            assert time.monotonic() - began >= 0.4

        homebound.run(main())

    def test_waits_for_the_server(self, rude: Any):
        async def main() -> None:
            opening = asyncio.create_task(NBDDisk.connect(rude.uri, open_timeout=30))
            await asyncio.sleep(0.2)
            await rude.start(serving(bytearray(SIZE)))
            (await opening).close()
            await rude.stop()

        homebound.run(main())

    def test_cancelled_in_the_handshake(self, rude: Any):
        """The worker's call ends with it."""

        async def talk(end: Any) -> None:
            await end.greet()
            greeted.set()
            await end.reader.read()

        async def main() -> None:
            async with rude.talking(talk):
                opening = asyncio.create_task(NBDDisk.connect(rude.uri, open_timeout=1000))
                await greeted.wait()
                opening.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await opening

        greeted = asyncio.Event()
        homebound.run(main())
