"""`homebound serve`, from outside."""

from __future__ import annotations

import resource
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from homebound.cli._statistics import live_line, totals_line
from homebound.nbd import ServerStats

from .conftest import Served
from .programs import succeed

if TYPE_CHECKING:
    from pathlib import Path

Serve = Callable[..., Served]
Refused = Callable[..., str]


def test_it_prints_where_it_is_and_stops_cleanly(serve: Serve, tmp_path: Path):
    path = tmp_path / "nbd.sock"
    served = serve("--size", "1M", "--unix", path)
    assert served.uri == f"nbd+unix:///?socket={path}"
    code, out, err = served.stop()
    assert (code, out) == (0, "")
    assert "serving memory, 1 MiB, at nbd+unix:///?socket=" in err
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
    subprocess.run(["qemu-io", "-f", "raw", *arguments, served.uri], check=True, timeout=50)
    assert served.stop()[0] == 0
    assert image.read_bytes()[4096:12288] == b"\x5a" * 8192


def test_a_port_in_use(refused: Refused):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert refused("--size", "1M", "--port", port) == (
            f"homebound: cannot listen on '127.0.0.1' port {port}: it is in use"
        )


def test_an_address_of_another_machine(refused: Refused):
    assert refused("--size", "1M", "--host", "192.0.2.1") == (  # a net for documentation
        "homebound: cannot listen on '192.0.2.1' port 10809: Cannot assign requested address"
    )


def test_a_socket_in_use(serve: Serve, refused: Refused, tmp_path: Path):
    path = tmp_path / "nbd.sock"
    first = serve("--size", "1M", "--unix", path)
    assert first.uri
    text = refused("--size", "1M", "--unix", path)
    assert f"cannot listen on '{path}': it is in use" in text
    assert first.stop()[0] == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--size", "much"], "'much' is not a size"),
        (["--size", "8E"], "'8E' is 9.22337e+18 bytes; a disk has less than 8E"),
        (["--size", "100E"], "a disk has less than 8E"),
        (["x.img", "--size", "1G"], "IMAGE has its own size"),
        (["--unix", "s", "--port", "1"], "choose one"),
        (["--unix", ""], "Invalid value for '--unix': it is empty"),
        (["--host", ""], "Invalid value for '--host': it is empty"),
        ([""], "IMAGE]': it is empty"),
        (["a.img", "b.img"], "unexpected extra argument (b.img)"),
        (["--what"], "No such option '--what'"),
        (["--size"], "Option '--size' requires an argument"),
        (["--format", "floppy"], "'floppy' is not one of 'auto', 'raw', 'qcow2'"),
        (["--no-lock"], "--no-lock is for images, and none is served"),
        (["memory:1M", "--format", "raw"], "--format raw is for images, and none is served"),
        (["disk.py", "--no-lock"], "--no-lock is for images, and none is served"),
        (["nbd://h/", "--no-lock"], "--no-lock is for images, and none is served"),
        (["overlay:x", "--no-lock"], "'overlay:x' has a format of its own, and is always locked"),
        (["overlay:x", "--format", "raw"], "--format raw is for images; the file of 'overlay:x'"),
        (["--export", "a=b.img", "--export", "c=overlay:x", "--no-lock"], "of 'overlay:x'"),
    ],
)
def test_wrong_use_is_one_line(refused: Refused, arguments: list[str], text: str):
    line = refused(*arguments, code=2)
    assert text in line
    assert line.endswith("; see homebound serve --help")


def test_too_few_descriptors(refused: Refused, tmp_path: Path):
    def have_few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))

    options = ["--size", "1M", "--unix", tmp_path / "s", "--iothreads", "50"]
    assert refused(*options, preexec_fn=have_few) == "homebound: Too many open files"


def test_a_socket_whose_path_is_not_utf_8(serve: Serve, tmp_path: Path):
    served = serve("--size", "1M", "--unix", bytes(tmp_path) + b"/\xff")
    assert served.uri == f"nbd+unix:///?socket={tmp_path}/%FF"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(bytes(tmp_path) + b"/\xff")
        assert client.recv(8) == b"NBDMAGIC"
    assert "export-size: 1048576" in succeed("info", served.uri)
    assert served.stop()[0] == 0


def test_a_relative_socket_is_told_with_its_whole_path(serve: Serve, tmp_path: Path):
    served = serve("--size", "1M", "--unix", "s", cwd=tmp_path)
    assert served.uri == f"nbd+unix:///?socket={tmp_path}/s"
    served.stop()


def test_the_line_on_standard_error(serve: Serve, image: Path):
    served = serve(image.name, "--port", "0", cwd=image.parent)
    assert served.hear() == f"serving disk.img, 1 MiB, at {served.uri}\n"
    assert served.stop() == (0, "", "")


def test_the_line_of_totals():
    stats = ServerStats(1, 3, 1100, 12, 4 << 20, 1 << 19, disk_errors=7)
    assert totals_line(stats, 2.5) == (
        "after 2.5 s: 1 clients now, 3 ever; 1,100 requests, 12 errors (7 from disks); "
        "read 4 MiB, written 512 KiB"
    )


def test_the_live_line():
    before = ServerStats(1, 1, 100, 0, 0, 0)
    after = ServerStats(2, 3, 1100, 1, 4 << 20, 1 << 19)
    line = live_line(before, after, 0.5)
    assert line == "2 clients  2,000 IOPS  read 8 MiB/s  written 1 MiB/s  1 errors"
