"""Clients that break off, garble or never read what TLS protects; none is told of in the log."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import ssl
import struct
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.block import MemoryDisk
from homebound.nbd import NBDServer
from homebound.nbd._protocol.wire import IHAVEOPT, Command, Option, ReplyType
from homebound.nbd._server.greeter import Greeter
from homebound.nbd._server.lane import Lane
from homebound.nbd._server.tls import certificate_context
from homebound.testing import settle

from .certificates import make_certificates

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

SIZE = 8 << 20
MIB = 1 << 20
READ, WRITE = Command.READ, Command.WRITE
STARTTLS = struct.pack(">QII", IHAVEOPT, Option.STARTTLS, 0)
LIST = struct.pack(">QII", IHAVEOPT, Option.LIST, 0)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("pki"))


@pytest.fixture(autouse=True)
def _nothing_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail the test if a client made the server or its loop log something."""
    yield
    assert not [record.getMessage() for record in caplog.get_records("call")]


@contextlib.asynccontextmanager
async def serving(certificates: Path, place: Path, **options: Any) -> AsyncIterator[NBDServer]:
    context = certificate_context(str(certificates), verify_peer=False)
    options = {"tls": context, "tls_required": True, "max_connections": 200, **options}
    with MemoryDisk(SIZE) as disk:
        async with NBDServer(disk, **options) as server:
            await server.listen_unix(place / "socket")
            yield server


async def until_no_clients(server: NBDServer) -> None:
    async with asyncio.timeout(30):
        while server.stats().clients:
            await asyncio.sleep(0.01)


async def before_tls(names: Any, place: Path) -> Any:
    """Connect a client up to the server's consent to TLS."""
    client = await names.client.connect(f"nbd+unix:///?socket={place / 'socket'}")
    await client.greeted()
    client.writer.write(STARTTLS)
    assert await client.option_reply() == ReplyType.ACK
    return client


async def inside_tls(names: Any, place: Path, certificates: Path) -> Any:
    client = await before_tls(names, place)
    context = ssl.create_default_context(cafile=str(certificates / "ca-cert.pem"))
    await client.writer.start_tls(context, server_hostname="localhost")
    return client


def client_hello() -> bytes:
    """Make the first message of a TLS handshake."""
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context()
    half = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        half.do_handshake()
    return outgoing.read()


@pytest.mark.usefixtures("virtual_clock")  # no client is late because the machine is slow
@pytest.mark.parametrize("stays", [False, True])
def test_a_hundred_handshakes_broken_off_anywhere(
    in_memory: Any, tmp_path: Path, certificates: Path, *, stays: bool
):
    """They vanish, or say no more until the time of the handshake is over."""
    hello, rng = client_hello(), random.Random(2)

    async def main() -> None:
        async with serving(certificates, tmp_path) as server:
            half = []
            for _ in range(100):
                client = await before_tls(in_memory, tmp_path)
                client.writer.write(hello[: rng.randrange(len(hello) + 1)])
                if stays:
                    half.append(client)
                else:
                    await client.vanish()
            await until_no_clients(server)
            for client in half:
                await client.close()
            whole = await inside_tls(in_memory, tmp_path, certificates)
            await whole.go()
            whole.send(READ, 1, 0, 512)
            assert await whole.reply(512) == (1, 0, bytes(512))
            await whole.vanish()

    homebound.run(main())


GARBAGE = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 10,
    "zeroes": bytes(1000),
    "an absurd option": struct.pack(">QII", IHAVEOPT, 99, 0xFFFFFFFF),
    "STARTTLS again, then garbage": STARTTLS + b"x" * 100,
}


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_for_options(in_memory: Any, tmp_path: Path, certificates: Path, garbage: str):
    async def main() -> None:
        async with serving(certificates, tmp_path) as server:
            client = await inside_tls(in_memory, tmp_path, certificates)
            client.writer.write(GARBAGE[garbage])
            answer = await client.reader.read()
            assert len(answer) < 200  # an error reply at most
            await client.close()
            await until_no_clients(server)

    homebound.run(main())


@pytest.mark.parametrize("where", ["options", "requests"])
@pytest.mark.parametrize(
    "garbage",
    [b"NBD without TLS" * 5, b"\x17\x03\x03\x00\x20" + b"x" * 32],
    ids=["text", "a record that was not encrypted"],
)
def test_garbage_for_records(
    in_memory: Any, tmp_path: Path, certificates: Path, where: str, garbage: bytes
):
    async def main() -> None:
        async with serving(certificates, tmp_path) as server:
            client = await inside_tls(in_memory, tmp_path, certificates)
            if where == "requests":
                await client.go()
            client.send(READ, 1, 0, 16)
            raw = client.writer.transport.get_extra_info("socket")
            os.write(raw.fileno(), garbage)  # past the encryption
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await client.reader.read()
            client.writer.transport.abort()
            await until_no_clients(server)

    homebound.run(main())


def test_the_end_of_tls_with_requests_in_flight(in_memory: Any, tmp_path: Path, certificates: Path):
    async def main() -> None:
        async with serving(certificates, tmp_path) as server:
            for count in (0, 1, 20):
                client = await inside_tls(in_memory, tmp_path, certificates)
                await client.go()
                for cookie in range(count):
                    client.send(READ, cookie, 0, 100_000)
                client.writer.close()  # tells TLS, then disconnects
                with contextlib.suppress(ConnectionError, ssl.SSLError):
                    await client.writer.wait_closed()
                await until_no_clients(server)

    homebound.run(main())


@pytest.mark.usefixtures("virtual_clock")
def test_a_client_that_does_not_read_its_options(
    in_memory: Any, tmp_path: Path, certificates: Path
):
    """It gets few answers, and no more time than any handshake."""

    async def main() -> None:
        async with serving(certificates, tmp_path) as server:
            client = await inside_tls(in_memory, tmp_path, certificates)
            client.writer.transport.pause_reading()
            client.writer.write(LIST * 40_000)
            await until_no_clients(server)
            await client.vanish()

    homebound.run(main())


def test_a_client_that_does_not_read_its_replies(
    in_memory: Any, tmp_path: Path, certificates: Path
):
    """The server holds little for it and serves others; later it finds all replies."""
    count = 40
    content = random.Random(3).randbytes(MIB)

    async def main() -> None:
        async with serving(certificates, tmp_path) as server:
            client = await inside_tls(in_memory, tmp_path, certificates)
            await client.go()
            client.send(WRITE, 0, MIB, payload=content)
            assert await client.reply() == (0, 0, b"")
            client.writer.transport.pause_reading()
            for cookie in range(count):
                client.send(READ, cookie, MIB, MIB)
            await settle()
            other = await inside_tls(in_memory, tmp_path, certificates)
            await other.go()
            other.send(READ, 1, MIB, 512)
            assert await other.reply(512) == (1, 0, content[:512])
            (served,) = server._served.values()
            assert served.budget.used < 16 * MIB
            assert server.stats().bytes_read < 20 * MIB
            client.writer.transport.resume_reading()
            replies = [await client.reply(MIB) for _ in range(count)]
            assert sorted(reply[0] for reply in replies) == list(range(count))
            assert {reply[1:] for reply in replies} == {(0, content)}
            for each in (client, other):
                await each.vanish()
            await until_no_clients(server)
            assert served.budget.used == 0

    homebound.run(main())


@pytest.mark.parametrize("vanishes", [False, True])
def test_a_client_that_does_not_read_the_consent(
    in_memory: Any, certificates: Path, *, vanishes: bool
):
    """TLS begins once the server's reply to STARTTLS is sent, or never."""

    class Transport(in_memory.transport):  # type: ignore[misc]
        """A transport that TLS may take over."""

        _start_tls_compatible = True

        def get_extra_info(self, name: str, default: Any = None) -> Any:
            del name
            return default

        def set_protocol(self, protocol: Any) -> None:
            self.protocol = protocol

        def pause_reading(self) -> None:
            self.receiving = False

        def resume_reading(self) -> None:
            self.receiving = True

        def _force_close(self, _: object) -> None:
            self.abort()

    async def main() -> None:
        context = certificate_context(str(certificates), verify_peer=False)
        with MemoryDisk(SIZE) as disk:
            server, lane = NBDServer(disk, tls=context), Lane()
            transport = Transport(room=18 + 5)
            greeter = Greeter(lane, server._visit, 60.0, server._encryption)
            transport.set_protocol(greeter)
            greeter.connection_made(transport)
            greeter.data_received(struct.pack(">I", 3) + STARTTLS)
            await settle()
            assert transport.protocol is greeter
            assert not transport.receiving  # it would come in the clear
            if not vanishes:
                transport.drain()
                await settle()
                hello = client_hello()
                tls: Any = transport.protocol
                tls.get_buffer(-1)[: len(hello)] = hello
                tls.buffer_updated(len(hello))
                assert transport.sent[18 + 20 :][:2] == b"\x16\x03"  # TLS's answer
            transport.closing = True
            transport.protocol.connection_lost(None)
            await settle()
            assert not lane.members

    homebound.run(main())
