"""STARTTLS: the negotiation, the server's side of it with rude clients, and real ones."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import ssl
import struct
import sys
from typing import TYPE_CHECKING, Any, Self

import pytest

import homebound
from homebound.block import MemoryDisk
from homebound.nbd import (
    Chosen,
    Closed,
    ExportInfo,
    ExportTable,
    NBDServer,
    Reply,
    ServerHandshake,
    TransmissionFlag,
)
from homebound.nbd._protocol.handshake import HandshakeState, StartTLS, Tls
from homebound.nbd._protocol.wire import IHAVEOPT, Command, Option, ReplyType
from homebound.nbd._server.greeter import Greeter
from homebound.nbd._server.lane import Lane
from homebound.nbd._server.tls import certificate_context, psk_context, read_keys
from homebound.testing import settle

from .certificates import make_certificates
from .peers import peer as run

if TYPE_CHECKING:
    from pathlib import Path

EXPORTS = ExportTable([ExportInfo("", 1 << 20, TransmissionFlag.HAS_FLAGS)])
SIZE = 8 << 20


def option(number: int, data: bytes = b"") -> bytes:
    return struct.pack(">QII", IHAVEOPT, number, len(data)) + data


GO = option(Option.GO, bytes(6))
CONTEXTS = option(Option.SET_META_CONTEXT, struct.pack(">III", 0, 1, 15) + b"base:allocation")


def begun(tls: Tls) -> ServerHandshake:
    handshake = ServerHandshake(EXPORTS, tls)
    handshake.receive(b"\0\0\0\3")
    assert handshake.next_event() is None
    return handshake


def ask(handshake: ServerHandshake, data: bytes) -> Any:
    handshake.receive(data)
    return handshake.next_event()


def kind(event: object) -> int:
    assert isinstance(event, Reply | StartTLS)
    return int(struct.unpack_from(">12xI", event.data)[0])


class TestNegotiation:
    def test_not_offered(self):
        handshake = begun(Tls.NONE)
        assert kind(ask(handshake, option(Option.STARTTLS))) == ReplyType.ERR_UNSUP
        assert isinstance(ask(handshake, GO), Chosen)

    @pytest.mark.parametrize("tls", [Tls.OFFERED, Tls.REQUIRED])
    def test_it_is_begun_once(self, tls: Tls):
        handshake = begun(tls)
        event = ask(handshake, option(Option.STARTTLS))
        assert isinstance(event, StartTLS)
        assert kind(event) == ReplyType.ACK
        assert handshake.state is HandshakeState.TLS
        handshake.encrypted(EXPORTS)
        assert kind(ask(handshake, option(Option.STARTTLS))) == ReplyType.ERR_INVALID
        assert isinstance(ask(handshake, GO), Chosen)

    def test_it_takes_no_data(self):
        handshake = begun(Tls.OFFERED)
        assert kind(ask(handshake, option(Option.STARTTLS, b"x"))) == ReplyType.ERR_INVALID
        assert isinstance(ask(handshake, GO), Chosen)

    def test_bytes_behind_it_end_the_connection(self):
        handshake = begun(Tls.OFFERED)
        event = ask(handshake, option(Option.STARTTLS) + GO)
        assert isinstance(event, Closed)
        assert event.data == b""
        assert "behind NBD_OPT_STARTTLS" in event.reason

    def test_bytes_during_the_tls_handshake_are_dropped(self):
        handshake = begun(Tls.OFFERED)
        ask(handshake, option(Option.STARTTLS))
        assert ask(handshake, GO) is None
        handshake.encrypted(EXPORTS)
        assert handshake.next_event() is None

    def test_what_came_before_is_forgotten(self):
        handshake = begun(Tls.OFFERED)
        assert kind(ask(handshake, option(Option.STRUCTURED_REPLY))) == ReplyType.ACK
        ask(handshake, CONTEXTS)
        ask(handshake, option(Option.STARTTLS))
        handshake.encrypted(EXPORTS)
        assert kind(ask(handshake, CONTEXTS)) == ReplyType.ERR_INVALID
        event = ask(handshake, GO)
        assert isinstance(event, Chosen)
        assert not event.structured
        assert not event.contexts

    @pytest.mark.parametrize(
        "sent",
        [
            GO,
            CONTEXTS,
            option(Option.LIST),
            option(Option.INFO, bytes(6)),
            option(Option.STRUCTURED_REPLY),
            option(Option.LIST_META_CONTEXT, bytes(8)),
            option(99, b"unknown"),
            option(Option.GO, bytes(1 << 17)),
        ],
    )
    def test_where_it_is_required_all_else_waits_for_it(self, sent: bytes):
        handshake = begun(Tls.REQUIRED)
        assert kind(ask(handshake, sent)) == ReplyType.ERR_TLS_REQD
        assert isinstance(ask(handshake, option(Option.STARTTLS)), StartTLS)

    def test_where_it_is_required_export_name_ends_the_connection(self):
        assert isinstance(ask(begun(Tls.REQUIRED), option(Option.EXPORT_NAME)), Closed)

    def test_where_it_is_required_abort_is_answered(self):
        event = ask(begun(Tls.REQUIRED), option(Option.ABORT))
        assert isinstance(event, Closed)
        assert struct.unpack_from(">12xI", event.data)[0] == ReplyType.ACK

    def test_the_end_of_the_stream_during_it(self):
        handshake = begun(Tls.OFFERED)
        ask(handshake, option(Option.STARTTLS))
        assert "TLS handshake" in handshake.receive_eof().reason


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of another authority."""
    return make_certificates(tmp_path_factory.mktemp("strangers"))


class Serving:
    """A server on TCP whose disk holds noise."""

    def __init__(self, certificates: Path, *, threads: int = 0, **options: Any) -> None:
        verify = options.pop("verify_peer", False)
        options.setdefault("tls", certificate_context(str(certificates), verify_peer=verify))
        self.options = options
        self.threads = threads

    async def __aenter__(self) -> Self:
        self.disk = MemoryDisk(SIZE)
        self.content = random.Random(5).randbytes(SIZE)
        await self.disk.write(0, self.content)
        self.pool = homebound.IOThreadPool(self.threads) if self.threads else None
        if self.pool is not None:
            await self.pool.__aenter__()
        self.server = NBDServer(self.disk, io_threads=self.pool or (), **self.options)
        await self.server.listen_tcp(port=0)
        self.uri = self.server.uris[0]
        self.port = int(self.uri.split(":")[2].rstrip("/"))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.stop(0.5)
        if self.pool is not None:
            await self.pool.__aexit__(None, None, None)
        self.disk.close()

    async def plain(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect up to the server's ACK of STARTTLS."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        assert await reader.readexactly(18) == b"NBDMAGICIHAVEOPT\0\3"
        writer.write(b"\0\0\0\3" + option(Option.STARTTLS))
        assert struct.unpack(">QIII", await reader.readexactly(20))[2] == ReplyType.ACK
        return reader, writer


def client_context(certificates: Path, *, own: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificates / "ca-cert.pem"))
    if own:
        context.load_cert_chain(certificates / "client-cert.pem", certificates / "client-key.pem")
    return context


async def closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Read to the end; return what was read."""
    try:
        return await reader.read()
    except (ConnectionError, ssl.SSLError):
        return b""
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except (ConnectionError, ssl.SSLError):
            pass


def talk_in_tls(port: int, context: ssl.SSLContext) -> bytes:
    """Begin TLS, and send an option, as a client does at once; return a reply. Blocks."""
    with socket.create_connection(("127.0.0.1", port), 30) as sock:
        sock.recv(18, socket.MSG_WAITALL)
        sock.sendall(b"\0\0\0\3" + option(Option.STARTTLS))
        sock.recv(20, socket.MSG_WAITALL)
        with context.wrap_socket(sock, server_hostname="localhost") as secured:
            secured.sendall(option(Option.STRUCTURED_REPLY))
            return secured.recv(20)


class TestServer:
    @pytest.mark.parametrize("threads", [0, 2])
    def test_a_read_of_everything(self, certificates: Path, threads: int):
        async def main() -> None:
            async with Serving(certificates, threads=threads) as serving:
                reader, writer = await serving.plain()
                await writer.start_tls(client_context(certificates), server_hostname="localhost")
                writer.write(GO)
                while struct.unpack(">QIII", head := await reader.readexactly(20))[2] != 1:
                    await reader.readexactly(struct.unpack(">QIII", head)[3])
                for cookie in range(8):
                    part = SIZE // 8
                    writer.write(
                        struct.pack(">IHHQQI", 0x25609513, 0, 0, cookie, cookie * part, part)
                    )
                seen = {}
                for _ in range(8):
                    _, error, cookie = struct.unpack(">IIQ", await reader.readexactly(16))
                    assert not error
                    seen[cookie] = await reader.readexactly(SIZE // 8)
                assert b"".join(seen[n] for n in range(8)) == serving.content
                writer.write(struct.pack(">IHHQQI", 0x25609513, 0, Command.DISC, 9, 0, 0))
                assert await closed(reader, writer) == b""

        homebound.run(main())

    @pytest.mark.parametrize("garbage", [b"", b"GET / HTTP/1.0\r\n\r\n" * 10, bytes(100), GO])
    def test_garbage_in_place_of_a_handshake(self, certificates: Path, garbage: bytes):
        async def main() -> None:
            async with Serving(certificates) as serving:
                reader, writer = await serving.plain()
                writer.write(garbage)
                if not garbage:
                    writer.write_eof()
                answer = await closed(reader, writer)
                assert b"NBD" not in answer
                assert not answer or answer[0] == 21  # a TLS alert at most
                assert serving.server.stats().clients == 0

        homebound.run(main())

    @pytest.mark.parametrize("loop", ["homebound", "uvloop"])
    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    @pytest.mark.parametrize("own", ["none", "another authority's"])
    def test_a_refused_client_is_told_why(
        self,
        certificates: Path,
        strangers: Path,
        version: ssl.TLSVersion,
        own: str,
        loop: str,
    ):
        """In the alert of TLS; before, it saw the end of the connection only."""
        context = client_context(certificates)
        context.minimum_version = context.maximum_version = version
        if own != "none":
            context.load_cert_chain(strangers / "client-cert.pem", strangers / "client-key.pem")
        reason = "UNKNOWN_CA" if own != "none" else "CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE"

        async def main() -> None:
            async with Serving(certificates, verify_peer=True) as serving:
                with pytest.raises(ssl.SSLError, match=f"(?i){reason.replace('_', '.')}"):
                    await asyncio.to_thread(talk_in_tls, serving.port, context)

        if loop == "uvloop":
            uvloop = pytest.importorskip("uvloop")
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(main())
        else:
            homebound.run(main())

    def test_a_refused_client_that_goes_on_sending_is_not_listened_to_for_long(
        self, certificates: Path
    ):
        """The alert is sent, what comes is discarded, and the connection ends."""

        async def main() -> None:
            async with Serving(certificates) as serving:
                reader, writer = await serving.plain()
                with contextlib.suppress(ConnectionError):
                    while True:
                        writer.write(bytes(64 << 10))
                        await writer.drain()
                received = await closed(reader, writer)
                # If the client's system has not dropped it with the reset that came later.
                assert received[:1] in {b"", b"\x15"}
                async with asyncio.timeout(30):
                    while serving.server.stats().clients:
                        await asyncio.sleep(0.01)

        homebound.run(main())

    def test_a_stop_during_the_handshake(self, certificates: Path):
        async def main() -> None:
            async with Serving(certificates) as serving:
                reader, writer = await serving.plain()
                await serving.server.stop(0.1)
                await closed(reader, writer)

        homebound.run(main())

    def test_the_subject_of_a_client(self, certificates: Path):
        seen = []

        class Exports:
            async def find(self, name: str, client: Any) -> Any:
                seen.append((name, client.tls, client.tls_subject))
                return MemoryDisk(512)

        async def main() -> None:
            context = certificate_context(str(certificates), verify_peer=True)
            async with NBDServer(Exports(), tls=context, tls_required=True) as server:
                await server.listen_tcp(port=0)
                port = int(server.uris[0].split(":")[2].rstrip("/"))
                serving = Serving(certificates)
                serving.port = port
                reader, writer = await serving.plain()
                await writer.start_tls(
                    client_context(certificates, own=True), server_hostname="localhost"
                )
                writer.write(GO)
                await reader.readexactly(20)
                writer.close()
                await writer.wait_closed()
            assert seen == [("", True, "CN=a client,O=Tests")]

        homebound.run(main())

    def test_wrong_arguments(self):
        with MemoryDisk(512) as disk:
            with pytest.raises(ValueError, match="tls_required needs a context"):
                NBDServer(disk, tls_required=True)
            with pytest.raises(ValueError, match="this one is for clients"):
                NBDServer(disk, tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
            with pytest.raises(TypeError, match=r"takes an ssl\.SSLContext"):
                NBDServer(disk, tls="directory")  # type: ignore[arg-type]


async def run_info(serving: Serving, certificates: Path) -> dict[str, Any]:
    uri = f"nbds://localhost:{serving.port}/?tls-certificates={certificates}"
    ((export),) = json.loads(await run("nbdinfo", "--json", uri))["exports"]
    return dict(export)


@pytest.mark.peers
class TestPeers:
    def test_nbdinfo_and_nbdcopy(self, certificates: Path, tmp_path: Path):
        async def main() -> None:
            async with Serving(certificates, threads=1) as serving:
                assert (await run_info(serving, certificates))["export-size"] == SIZE
                uri = f"nbds://localhost:{serving.port}/?tls-certificates={certificates}"
                for connections in ("1", "4"):
                    out = tmp_path / f"out{connections}"
                    await run("nbdcopy", f"--connections={connections}", uri, out)
                    assert out.read_bytes() == serving.content
                await serving.disk.write(0, bytes(SIZE))
                await run("nbdcopy", tmp_path / "out1", uri)
                assert await serving.disk.read(0, SIZE) == serving.content

        homebound.run(main())

    def test_on_uvloop(self, certificates: Path, tmp_path: Path):
        uvloop = pytest.importorskip("uvloop")

        async def main() -> None:
            async with Serving(certificates, handshake_timeout=30) as serving:
                out = tmp_path / "out"
                uri = f"nbds://localhost:{serving.port}/?tls-certificates={certificates}"
                await run("nbdcopy", uri, out)
                assert out.read_bytes() == serving.content

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())

    def test_qemu_img(self, certificates: Path, tmp_path: Path):
        async def main() -> None:
            async with Serving(certificates, verify_peer=True, tls_required=True) as serving:
                assert serving.uri.startswith("nbds://")
                creds = f"tls-creds-x509,id=t,endpoint=client,dir={certificates}"
                image = f"driver=nbd,host=127.0.0.1,port={serving.port},tls-creds=t"
                out = tmp_path / "out"
                command = ("qemu-img", "convert", "--object", creds, "--image-opts", image)
                await run(*command, "-O", "raw", out)
                assert out.read_bytes() == serving.content

        homebound.run(main())

    def test_clients_that_are_refused(self, certificates: Path):
        async def main() -> None:
            async with Serving(certificates, verify_peer=True, tls_required=True) as serving:
                await run("nbdinfo", f"nbd://localhost:{serving.port}/", fails=True)
            async with Serving(certificates) as serving:
                await run("nbdinfo", f"nbd://localhost:{serving.port}/")

        homebound.run(main())

    @pytest.mark.skipif(sys.version_info < (3, 13), reason="pre-shared keys need Python 3.13")
    def test_pre_shared_keys(self, certificates: Path, tmp_path: Path):
        keys = tmp_path / "keys.psk"
        keys.write_text("alice:d543770c15ad93d76443fb56f501a31969235f47e999720ae8d2336f6a13fcbc\n")
        wrong = tmp_path / "wrong.psk"
        wrong.write_text("alice:0000770c15ad93d76443fb56f501a31969235f47e999720ae8d2336f6a13fcbc\n")

        async def main() -> None:
            async with Serving(certificates, tls=psk_context(str(keys))) as serving:
                uri = f"nbds://alice@localhost:{serving.port}/?tls-psk-file="
                await run("nbdinfo", f"{uri}{keys}")
                await run("nbdinfo", f"{uri}{wrong}", fails=True)

        homebound.run(main())


class TestKeys:
    def test_a_file(self, tmp_path: Path):
        file = tmp_path / "keys"
        file.write_text("# comment\n\nalice:00ff\nbob:with:colon:AB\n")
        assert read_keys(str(file)) == {"alice": b"\0\xff", "bob:with:colon": b"\xab"}

    @pytest.mark.parametrize("text", ["alice\n", "alice:xyz\n", ":00\n", "alice:\n"])
    def test_a_line_that_is_none(self, tmp_path: Path, text: str):
        file = tmp_path / "keys"
        file.write_text("ok:00\n" + text)
        with pytest.raises(ValueError, match="line 2: it is not user:key"):
            read_keys(str(file))

    def test_a_file_without_keys(self, tmp_path: Path):
        file = tmp_path / "keys"
        file.write_text("# nothing\n")
        with pytest.raises(ValueError, match="has no key"):
            read_keys(str(file))

    def test_an_old_python(self, tmp_path: Path):
        if sys.version_info >= (3, 13):
            pytest.skip("this one has them")
        with pytest.raises(NotImplementedError, match=r"3\.13"):
            psk_context(str(tmp_path / "none"))


@pytest.mark.parametrize("early", [option(Option.LIST), b"x"])
def test_bytes_just_before_tls_begins_end_the_connection(
    in_memory: Any, certificates: Path, early: bytes
):
    """They are received apart from the option, but before TLS reads from the connection."""

    class Transport(in_memory.transport):  # type: ignore[misc]
        """A transport that says nothing of its client."""

        def get_extra_info(self, name: str, default: Any = None) -> Any:
            del name
            return default

    async def main() -> None:
        with MemoryDisk(SIZE) as disk:
            context = certificate_context(str(certificates), verify_peer=False)
            server, lane, transport = NBDServer(disk, tls=context), Lane(), Transport()
            greeter = Greeter(lane, server._visit, 60.0, server._encryption)
            transport.protocol = greeter
            greeter.connection_made(transport)
            greeter.data_received(struct.pack(">I", 3) + option(Option.STARTTLS))
            greeter.data_received(early)
            assert transport.aborted
            await settle()
            assert not lane.members

    homebound.run(main())
