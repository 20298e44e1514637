"""`homebound serve`, from outside."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from homebound.cli._serve import live_line
from homebound.nbd import ServerStats

from .conftest import Served, without_reading

if TYPE_CHECKING:
    from pathlib import Path

Serve = Callable[..., Served]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_where_it_is_and_stops_cleanly(serve: Serve, tmp_path: Path, number: int):
    path = tmp_path / "nbd.sock"
    served = serve("--size", "1M", "--unix", path)
    assert served.uri == f"nbd+unix:///?socket={path}"
    code, out, err = served.stop(number)
    assert (code, out) == (0, "")
    assert "1.0 MiB, read-write" in err
    assert not path.exists()


def test_port_0_takes_a_free_one(serve: Serve, image: Path):
    served = serve(image, "--port", "0", "--read-only", "--name", "disk one")
    assert served.uri.startswith("nbd://127.0.0.1:")
    assert served.uri.endswith("/disk%20one")
    host, port = served.uri.split("/")[2].split(":")
    with socket.create_connection((host, int(port))) as client:
        assert client.recv(18, socket.MSG_WAITALL) == struct.pack(
            ">8s8sH", b"NBDMAGIC", b"IHAVEOPT", 3
        )
    code, _, err = served.stop()
    assert code == 0
    assert "read-only" in err


@pytest.mark.parametrize("iothreads", [0, 1, 2])
@pytest.mark.peers
def test_a_real_client_reads_and_writes(serve: Serve, image: Path, iothreads: int):
    if shutil.which("qemu-io") is None:
        pytest.skip("qemu-io (Debian: qemu-utils) is not installed")
    served = serve(image, "--unix", image.with_suffix(".sock"), "--iothreads", iothreads)
    commands = ["write -P 0x5a 4096 8192", "read -P 0x5a 4096 8192", "flush", "read -P 0 0 1"]
    arguments = [part for command in commands for part in ("-c", command)]
    subprocess.run(["qemu-io", "-f", "raw", *arguments, served.uri], check=True, timeout=30)
    assert served.stop()[0] == 0
    assert image.read_bytes()[4096:12288] == b"\x5a" * 8192


def refused(serve: Serve, *arguments: Any) -> str:
    served = serve(*arguments)
    code, out, err = served.finish()
    assert code != 0
    assert (served.uri, out) == ("", "")
    assert "Traceback" not in err
    return err


def test_an_image_that_is_not_there(serve: Serve, tmp_path: Path):
    assert "there is no such file" in refused(serve, tmp_path / "none.img")


def test_an_image_that_is_a_directory(serve: Serve, tmp_path: Path):
    assert "it is a directory" in refused(serve, tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_image_that_may_not_be_read(serve: Serve, image: Path):
    with without_reading(image):
        assert "permission" in refused(serve, image)


def test_an_empty_image(serve: Serve, tmp_path: Path):
    (tmp_path / "empty.img").touch()
    assert "empty" in refused(serve, tmp_path / "empty.img")


def test_a_size_that_is_no_number(serve: Serve):
    assert "'much' is not a size" in refused(serve, "--size", "much")


def test_a_size_for_an_image(serve: Serve, image: Path):
    assert "the size of IMAGE is its own" in refused(serve, image, "--size", "1G")


def test_two_places_to_listen(serve: Serve, tmp_path: Path):
    assert "choose one" in refused(serve, "--unix", tmp_path / "s", "--port", "1")


def test_a_port_in_use(serve: Serve):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert f"{port}" in refused(serve, "--size", "1M", "--port", port)


def test_a_socket_in_use(serve: Serve, tmp_path: Path):
    path = tmp_path / "nbd.sock"
    first = serve("--size", "1M", "--unix", path)
    assert first.uri
    assert str(path) in refused(serve, "--size", "1M", "--unix", path)
    assert first.stop()[0] == 0


def test_the_live_line():
    before = ServerStats(1, 1, 100, 0, 0, 0)
    after = ServerStats(2, 3, 1100, 1, 4 << 20, 1 << 19)
    line = live_line(before, after, 0.5)
    assert line == "2 clients  2,000 IOPS  read 8.0 MiB/s  written 1.0 MiB/s  1 errors"
