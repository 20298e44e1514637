"""`--max-connections` and `--round-size`."""

from __future__ import annotations

import inspect
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from homebound.nbd import NBDServer
from homebound.testing import until

from .conftest import TIMEOUT, Served

if TYPE_CHECKING:
    from pathlib import Path

Serve = Callable[..., Served]
Refused = Callable[..., str]

# The options are the server's.
pytestmark = pytest.mark.skipif(
    "max_connections" not in inspect.signature(NBDServer).parameters,
    reason="this NBDServer has no limits",
)


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(TIMEOUT)
    client.connect(str(path))
    return client


def test_a_connection_too_many_is_closed(serve: Serve, tmp_path: Path):
    served = serve("--size", "1M", "--unix", tmp_path / "s", "--max-connections", "2")
    with connect(tmp_path / "s") as first, connect(tmp_path / "s") as second:
        assert first.recv(8) == second.recv(8) == b"NBDMAGIC"
        with connect(tmp_path / "s") as third:
            assert third.recv(8) == b""
    assert served.stop()[0] == 0


@pytest.mark.peers
@pytest.mark.parametrize("size", [1, 511, 1000, 4097])
def test_an_odd_image_out_and_back(serve: Serve, tmp_path: Path, size: int):
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-img (Debian: qemu-utils) is not installed")
    image, copy = tmp_path / "image", tmp_path / "copy"
    content = bytes(range(1, 256)) * 20
    image.write_bytes(content[:size])
    served = serve(image, "--unix", tmp_path / "s", "--round-size", "512")
    rounded = -(-size // 512) * 512
    assert f", {rounded} B, at " in served.hear() or rounded > 1023
    convert = ["qemu-img", "convert", "-f", "raw", "-O", "raw"]
    subprocess.run([*convert, served.uri, copy], check=True, timeout=TIMEOUT)
    assert copy.read_bytes() == content[:size] + bytes(rounded - size)
    subprocess.run([*convert, "-n", copy, served.uri], check=True, timeout=TIMEOUT)
    assert served.stop()[0] == 0
    assert image.read_bytes() == content[:size]


EXPORT_NAME = struct.pack(">I8sII", 3, b"IHAVEOPT", 1, 0)  # the default one, without zeroes
READ = struct.pack(">IHHQQI", 0x25609513, 0, 0, 1, 0, 4096)


def is_greeted(path: Path) -> bool:
    with connect(path) as client:
        return client.recv(8) == b"NBDMAGIC"


def test_the_hundred_and_first_by_default(serve: Serve, tmp_path: Path):
    """It is closed at once, and the others go on."""
    path = tmp_path / "s"
    served = serve("--size", "1M", "--unix", path)
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(path)) for _ in range(100)]
        for client in clients:
            assert len(client.recv(18, socket.MSG_WAITALL)) == 18
            client.sendall(EXPORT_NAME)
        for _ in range(3):
            assert not is_greeted(path)
        for client in clients:
            size, _ = struct.unpack(">QH", client.recv(10, socket.MSG_WAITALL))
            assert size == 1 << 20
            client.sendall(READ)
            assert len(client.recv(16 + 4096, socket.MSG_WAITALL)) == 16 + 4096
        clients[50].close()
        until(lambda: is_greeted(path))
    assert served.stop()[0] == 0


@pytest.mark.parametrize("arguments", [["--max-connections", "0"], ["--round-size", "0"]])
def test_invalid_limits(refused: Refused, arguments: list[str]):
    assert "Invalid value for" in refused(*arguments, code=2)
