"""`--max-connections` and `--round-size`."""

from __future__ import annotations

import inspect
import shutil
import socket
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from homebound.nbd import NBDServer

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


@pytest.mark.parametrize("arguments", [["--max-connections", "0"], ["--round-size", "0"]])
def test_invalid_limits(refused: Refused, arguments: list[str]):
    assert "Invalid value for" in refused(*arguments, code=2)
