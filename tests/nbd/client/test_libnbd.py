"""homebound.nbd.libnbd: what libnbd's own module does, call by call, and by itself."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.block import MemoryDisk
from homebound.nbd import NBDServer
from homebound.nbd import libnbd as nbd

if TYPE_CHECKING:
    from collections.abc import Iterator

CALLS = Path(__file__).parent / "libnbd_calls.py"
SIZE = 1 << 20


def outcomes(python: str, module: str, uri: str, image: Path) -> list[Any]:
    environment = dict(os.environ)
    if module == "ours":
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [python, CALLS, module, uri, image],
        check=True,
        stdout=subprocess.PIPE,
        env=environment,
        timeout=50,
    )
    found: list[Any] = json.loads(done.stdout)
    return found


@pytest.mark.peers
@pytest.mark.parametrize("server", ["nbdkit", "qemu-nbd"])
def test_the_same_calls_give_the_same(program: Any, tmp_path: Path, server: str):
    debian = "/usr/bin/python3"
    has_it = subprocess.run([debian, "-c", "import nbd"], check=False, capture_output=True)
    if has_it.returncode:
        pytest.skip("libnbd's Python module (Debian: python3-libnbd) is not installed")
    for needed in ("nbdkit", "qemu-nbd"):
        if shutil.which(needed) is None:
            pytest.skip(f"{needed} is not installed")
    image = tmp_path / "image"
    both = []
    for python, module in ((debian, "libnbd's"), (sys.executable, "ours")):
        image.write_bytes(b"i" * 32768 + bytes(SIZE - 32768))
        if server == "nbdkit":
            program.start(*("nbdkit", "-f", "-U", program.socket, "file", image))
        else:
            program.start(
                *("qemu-nbd", "-t", "-e", "9", "-f", "raw", "-x", "", "-k", program.socket),
                *("-D", "an image", image),
            )
        program.until_listening()
        both.append(outcomes(python, module, program.uri(), image))
        program.kill()
    theirs, ours = both
    assert [each[0] for each in ours] == [each[0] for each in theirs]
    different = [pair for pair in zip(theirs, ours, strict=True) if pair[0] != pair[1]]
    assert not different


@pytest.fixture
def uri() -> Iterator[str]:
    """Serve a disk in memory, in another thread."""

    async def serve() -> None:
        with MemoryDisk(SIZE) as disk:
            async with NBDServer(disk) as server:
                await server.listen_tcp("127.0.0.1", 0)
                uris.append(server.uris[0])
                listening.set()
                await over.wait()

    uris: list[str] = []
    listening, over = threading.Event(), homebound.Event()
    with homebound.IOThread() as io:
        task = io.spawn(serve())
        listening.wait()
        yield uris[0]
        over.set()
        homebound.block_on(asyncio.wait([task]), io.context)


def test_on_our_server(uri: str):
    with nbd.NBD() as h:
        h.connect_uri(uri)
        h.pwrite(b"hello", 10)
        assert h.pread(5, 10) == b"hello"
        large = bytes(range(256)) * 1024
        h.pwrite(large, 100)
        assert h.pread(len(large), 100) == large
        h.flush()


def test_used_by_threads(uri: str):
    """One thread at a time has the handle."""

    def use(n: int) -> None:
        for count in range(50):
            data = bytes([n, count]) * 256
            h.pwrite(data, n * 512)
            assert h.pread(512, n * 512) == data

    with nbd.NBD() as h:
        h.connect_uri(uri)
        with homebound.WorkerPool(4) as pool:
            for future in [pool.submit(use, n) for n in range(4)]:
                future.result()


def test_a_connected_socket(uri: str):
    host, port = uri.removeprefix("nbd://").rstrip("/").split(":")
    sock = socket.create_connection((host, int(port)))
    with nbd.NBD() as h:
        h.connect_socket(sock.detach())
        assert h.get_size() == SIZE


def test_debug_messages(uri: str):
    found: list[tuple[str, str]] = []
    with nbd.NBD() as h:
        h.set_debug_callback(lambda context, message: found.append((context, message)))
        h.set_debug(True)
        h.connect_uri(uri)
        h.shutdown()
    assert found[0] == ("nbd_connect_uri", f"connecting to {uri}")
    assert found[-2:] == [("nbd_shutdown", "disconnected"), ("nbd_close", "closing handle")]


def test_a_lost_connection():
    ours, theirs = socket.socketpair()

    def talk() -> None:
        with theirs:
            theirs.sendall(b"NBDMAGICIHAVEOPT\0\0")
            theirs.recv(4)
            theirs.recv(16)
            theirs.sendall((1 << 20).to_bytes(8, "big") + b"\0\1" + bytes(124))
            theirs.recv(28)

    thread = threading.Thread(target=talk)
    thread.start()
    with nbd.NBD() as h:
        h.connect_socket(ours.detach())
        with pytest.raises(nbd.Error, match="command failed") as caught:
            h.pread(1, 0)
        assert caught.value.errnum == errno.ENOTCONN
        assert h.aio_is_dead()
        with pytest.raises(nbd.Error, match="invalid state: DEAD"):
            h.pread(1, 0)
    thread.join()


def test_callbacks_that_fail(uri: str):
    """They fail their request, with EPROTO or the errno that they set."""

    def refuse(_data: Any, _offset: int, _status: int, error: Any) -> None:
        error.value = errno.ENOMEM
        raise ValueError("no")

    def tolerate(data: memoryview, offset: int, status: int, error: Any) -> None:
        assert (bytes(data), offset, status, error.value) == (bytes(4), 8, nbd.READ_DATA, 0)
        error.value = errno.ENOMEM

    with nbd.NBD() as h:
        h.connect_uri(uri)
        assert h.pread_structured(4, 8, tolerate) == bytes(4)
        with pytest.raises(nbd.Error) as caught:
            h.pread_structured(4, 8, refuse)
        assert caught.value.errno == "ENOMEM"
        assert isinstance(caught.value.__cause__, ValueError)
        buffer = bytearray(4)
        cookie = h.aio_pread_structured(buffer, 8, tolerate, lambda _: -1)
        while h.aio_in_flight():
            h.poll(-1)
        with pytest.raises(nbd.Error) as caught:
            h.aio_command_completed(cookie)
        assert caught.value.errno == "EPROTO"
        with pytest.raises(BufferError):
            h.aio_pread(bytes(4), 0)


def test_option_mode(uri: str):
    with nbd.NBD() as h:
        h.set_opt_mode(True)
        h.connect_uri(uri)
        assert h.opt_list(lambda *_: None) == 1
        h.set_export_name("none")
        with pytest.raises(nbd.Error) as caught:
            h.opt_info()
        assert caught.value.errno == "ENOENT"
        h.set_export_name("")
        h.opt_info()
        assert h.get_size() == SIZE
        h.set_export_name("another")
        with pytest.raises(nbd.Error, match="connect to the server first"):
            h.get_size()
        h.set_export_name("")
        h.opt_go()
        assert h.pread(1, 0) == b"\0"


def test_a_closed_handle():
    h = nbd.NBD()
    h.close()
    with pytest.raises(nbd.ClosedHandle):
        h.close()
    with pytest.raises(nbd.ClosedHandle):
        h.get_size()


def test_files_in_a_uri_must_be_allowed():
    with nbd.NBD() as h:
        with pytest.raises(nbd.Error, match="set_uri_allow_local_file") as caught:
            h.connect_uri("nbds://localhost/?tls-psk-file=/keys")
        assert caught.value.errno == "EPERM"
        h.set_uri_allow_transports(nbd.ALLOW_TRANSPORT_UNIX)
        with pytest.raises(nbd.Error, match="transport is not allowed"):
            h.connect_uri("nbd://localhost/")


def test_it_says_what_it_is():
    h = nbd.NBD()
    assert h.supports_tls()
    assert h.supports_uri()
    assert h.get_version() == homebound.__version__
    assert h.get_package_name() == "homebound"
    assert nbd.Error.__module__ == "homebound.nbd.libnbd"


@pytest.mark.parametrize("host", ["a..b", "x" * 99])
def test_what_no_host_can_be_named(host: str):
    with nbd.NBD() as h, pytest.raises(nbd.Error, match="is no name of a host") as caught:
        h.connect_tcp(host, "10809")
    assert caught.value.errno == "EINVAL"
