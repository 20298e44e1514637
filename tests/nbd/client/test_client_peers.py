"""Other programs' servers: qemu-nbd, nbdkit with filters, nbd-server."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import socket
import ssl
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.block import DiskError
from homebound.nbd import ConnectError, ConnectionLost, NBDDisk
from homebound.testing import Case, disk_cases

from .servers import serving_elsewhere

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.peers

SIZE = 100_352  # a multiple of 512


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(b"i" * SIZE)
    return path


def start(program: Any, server: str, image: Path) -> None:
    unix = ("-f", "-U", program.socket)
    commands = {
        "qemu-nbd": ("qemu-nbd", "-t", "-e", "9", "-f", "raw", "-k", program.socket, image),
        "nbdkit": ("nbdkit", *unix, "file", image),
        "nbdkit without chunks": ("nbdkit", *unix, "--no-sr", "file", image),
        "nbdkit with delays": (
            *("nbdkit", *unix, "--filter=delay", "file", image),
            *("rdelay=1ms", "wdelay=1ms", "delay-zero=1ms"),
        ),
        "nbdkit in blocks": (
            *("nbdkit", *unix, "--filter=blocksize-policy", "file", image),
            *("blocksize-minimum=512", "blocksize-maximum=65536", "blocksize-error-policy=error"),
        ),
    }
    program.start(*commands[server])


SERVERS = ["qemu-nbd", "nbdkit", "nbdkit without chunks", "nbdkit with delays", "nbdkit in blocks"]


@pytest.mark.parametrize("case", disk_cases())
@pytest.mark.parametrize("server", SERVERS)
def test_it_is_a_disk(case: Case, server: str, program: Any, image: Path):
    start(program, server, image)

    async def connect() -> NBDDisk:
        return await NBDDisk.connect(program.uri(), open_timeout=20)

    case.check(connect)


@pytest.fixture(scope="module")
def nbd_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start nbd-server, which serves more than one client only as a daemon."""
    if shutil.which("nbd-server") is None:
        pytest.skip("nbd-server is not installed")
    place = tmp_path_factory.mktemp("nbd-server")
    config, pid, unix, image = (place / name for name in ("config", "pid", "server", "image"))
    image.write_bytes(bytes(SIZE))
    with socket.create_server(("127.0.0.1", 0)) as sock:  # it must listen on TCP too
        port = sock.getsockname()[1]
    config.write_text(
        f"[generic]\nunixsock = {unix}\nlistenaddr = 127.0.0.1\nport = {port}\n"
        f"[disk]\nexportname = {image}\nflush = true\nfua = true\ntrim = true\n"
    )
    subprocess.run(["nbd-server", "-C", config, "-p", pid], check=True, capture_output=True)
    yield f"nbd+unix:///disk?socket={unix}"
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(pid.read_text()), signal.SIGTERM)


@pytest.mark.parametrize("case", disk_cases())
def test_nbd_server_is_a_disk(case: Case, nbd_server: str):
    case.check(lambda: NBDDisk.connect(nbd_server, open_timeout=20))


def test_on_nbd_server(nbd_server: str):
    async def main() -> None:
        async with await NBDDisk.connect(nbd_server, open_timeout=20) as disk:
            await asyncio.gather(*(disk.write(n * 512, bytes([n]) * 512) for n in range(100)))
            found = await asyncio.gather(*(disk.read(n * 512, 512) for n in range(100)))
            assert found == [bytes([n]) * 512 for n in range(100)]
            await disk.write(0, b"x" * 512, fua=True)
            await disk.flush()
        with pytest.raises(ConnectError):
            await NBDDisk.connect(nbd_server, export="none")

    homebound.run(main())


def test_errors_and_delays(program: Any, image: Path):
    program.start(
        *("nbdkit", "-f", "-U", program.socket, "--filter=error", "--filter=delay", "file", image),
        *("error-pread=ENOSPC", "error-pread-rate=50%", "rdelay=1ms"),
    )

    async def main() -> None:
        async with await NBDDisk.connect(program.uri(), open_timeout=20) as disk:
            reads = [disk.read(n * 512, 512) for n in range(100)]
            outcomes = await asyncio.gather(*reads, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, DiskError):
                assert outcome.errno == errno.ENOSPC
            else:
                assert outcome == b"i" * 512
        assert 0 < sum(isinstance(outcome, DiskError) for outcome in outcomes) < 100

    homebound.run(main())


def test_a_server_that_exits_with_its_last_client(program: Any, image: Path):
    program.start("nbdkit", "-f", "-U", program.socket, "--filter=exitlast", "file", image)

    async def main() -> None:
        async with await NBDDisk.connect(program.uri(), open_timeout=20) as disk:
            assert await disk.read(0, 1) == b"i"
        assert await homebound.to_worker(program.process.wait) == 0
        with pytest.raises(ConnectError):
            await NBDDisk.connect(program.uri())

    homebound.run(main())


def test_several_connections_to_qemu(program: Any, image: Path):
    """qemu-nbd says that they share what is flushed if it serves several clients read-only."""
    program.start("qemu-nbd", "-t", "-r", "-e", "9", "-f", "raw", "-k", program.socket, image)

    async def main() -> None:
        async with await NBDDisk.connect(program.uri(), open_timeout=20, connections=4) as disk:
            assert disk.connections == 4
            assert disk.read_only
            reads = [disk.read(n * 512, 512) for n in range(100)]
            assert await asyncio.gather(*reads) == [b"i" * 512] * 100

    homebound.run(main())


def test_a_dirty_bitmap(tmp_path: Path, program: Any):
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-img is not installed")
    path = tmp_path / "q"
    for command in (
        ("qemu-img", "create", "-q", "-f", "qcow2", path, "1M"),
        ("qemu-img", "bitmap", "--add", path, "b0"),
        ("qemu-io", "-c", "write 64k 64k", path),
    ):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    program.start("qemu-nbd", "-t", "-f", "qcow2", "-B", "b0", "-k", program.socket, path)
    name = "qemu:dirty-bitmap:b0"

    async def main() -> None:
        async with await NBDDisk.connect(program.uri(), open_timeout=20, meta=[name]) as disk:
            assert name in disk.contexts()
            found = await disk.status(name, 0, disk.size)
            assert found == [(65536, 0), (65536, 1), (917504, 0)]
            allocation = await disk.block_status(0, disk.size)
            assert [(each.length, each.zero) for each in allocation] == [
                (65536, True),
                (65536, False),
                (917504, True),
            ]

    homebound.run(main())


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """Make an authority, and a certificate of localhost, in the files that NBD servers look for."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    made = tmp_path / "pki"
    made.mkdir()
    ca, key, cert = made / "ca-cert.pem", made / "server-key.pem", made / "server-cert.pem"
    request, names = made / "request", made / "names"
    names.write_text("subjectAltName=DNS:localhost\n")
    new = ("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for command in (
        (
            *(*new, "-x509", "-keyout", made / "ca-key.pem", "-out", ca, "-subj", "/CN=authority"),
            *("-addext", "keyUsage=critical,keyCertSign"),
        ),
        (*new, "-keyout", key, "-out", request, "-subj", "/CN=localhost"),
        (
            *("openssl", "x509", "-req", "-in", request, "-CA", ca, "-CAkey", made / "ca-key.pem"),
            *("-CAcreateserial", "-extfile", names, "-out", cert),
        ),
    ):
        subprocess.run(command, check=True, capture_output=True)
    return made


def test_tls(program: Any, image: Path, certificates: Path):
    program.start(
        *("nbdkit", "-f", "-U", program.socket, "--tls=require"),
        *(f"--tls-certificates={certificates}", "file", image),
    )
    uri = program.uri().replace("nbd+", "nbds+") + f"&tls-certificates={certificates}"

    async def main() -> None:
        with pytest.raises(ConnectError, match=r"No such|refused|TLS_REQD"):
            await NBDDisk.connect(program.uri())
        async with await NBDDisk.connect(uri, open_timeout=20) as disk:
            data = bytes(range(256)) * 300
            await asyncio.gather(*(disk.write(n * 512, data[:512]) for n in range(100)))
            await disk.write(10, data)
            assert await disk.read(10, len(data)) == data
            assert await disk.block_status(0, SIZE)
        with pytest.raises(ConnectError, match="certificate"):
            await NBDDisk.connect(f"{uri}&tls-hostname=elsewhere.example")
        context = ssl.create_default_context(cafile=certificates / "ca-cert.pem")
        context.check_hostname = False
        async with await NBDDisk.connect(program.uri(), tls=context) as disk:
            assert len(await disk.read(0, SIZE)) == SIZE

    homebound.run(main())


@pytest.fixture
def encrypted(tmp_path: Path, certificates: Path) -> Iterator[str]:
    """Our server, which requires TLS, in another thread."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server-cert.pem", certificates / "server-key.pem")
    with serving_elsewhere(tmp_path / "tls", SIZE, tls=context, tls_required=True):
        yield f"nbds+unix:///?socket={tmp_path}/tls&tls-certificates={certificates}"


@pytest.mark.parametrize("case", disk_cases())
def test_it_is_a_disk_by_tls(case: Case, encrypted: str):
    case.check(lambda: NBDDisk.connect(encrypted, connections=2))


def test_moved_and_reconnected_by_tls(encrypted: str):
    async def main() -> None:
        async with await NBDDisk.connect(encrypted, reconnect_delay=30) as disk:
            data = bytes(range(251)) * 300
            with homebound.IOThread() as io:
                for place in (io.context, homebound.running_context()) * 3:
                    writes = [asyncio.create_task(disk.write(0, data)) for _ in range(4)]
                    await disk.move_to(place)
                    await asyncio.gather(*writes)
                    assert await disk.read(0, len(data)) == data
                await disk.move_to(homebound.running_context())
            disk._client.channels[0].link.sock.shutdown(socket.SHUT_RDWR)
            assert await disk.read(0, len(data)) == data

    homebound.run(main())


def test_tls_is_not_left_out(program: Any, image: Path, certificates: Path):
    """A server that has no TLS is refused, not spoken to in plaintext."""
    start(program, "nbdkit", image)
    uri = program.uri().replace("nbd+", "nbds+") + f"&tls-certificates={certificates}"

    async def main() -> None:
        with await NBDDisk.connect(program.uri(), open_timeout=20):  # it has started
            pass
        with pytest.raises(ConnectError, match="STARTTLS"):
            await NBDDisk.connect(uri)

    homebound.run(main())


@pytest.mark.skipif(
    not hasattr(ssl.SSLContext, "set_psk_client_callback"), reason="Python 3.13 and later have PSK"
)
def test_tls_with_a_shared_key(tmp_path: Path, program: Any, image: Path):
    keys = tmp_path / "keys"
    keys.write_text("alice:" + "42" * 16 + "\nbob:" + "17" * 16 + "\n")
    program.start(
        *("nbdkit", "-f", "-U", program.socket, "--tls=require", f"--tls-psk={keys}"),
        *("file", image),
    )
    uri = f"nbds+unix://bob@/?socket={program.socket}&tls-psk-file={keys}"

    async def main() -> None:
        async with await NBDDisk.connect(uri, open_timeout=20) as disk:
            assert await disk.read(0, 100) == b"i" * 100

    homebound.run(main())


def test_the_server_is_killed(program: Any, image: Path):
    start(program, "nbdkit", image)

    async def main() -> None:
        with await NBDDisk.connect(program.uri(), open_timeout=20) as disk:
            assert await disk.read(0, 1) == b"i"
            program.kill()
            with pytest.raises(ConnectionLost):
                await disk.read(0, 1)

    homebound.run(main())
