"""`homebound copy` while a server is killed and started again: it goes on, with the right data."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from .programs import TIMEOUT, need

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20
SIZE = 40 * MIB
HALF = SIZE // 2
pytestmark = pytest.mark.peers

# A disk that has a read of its second half wait until the test says so.
PAUSING = """
import pathlib, time
here = pathlib.Path(__file__).parent
image = open(here / "source.img", "r+b", buffering=0)
size = {size}
def wait(offset):
    if offset >= {half}:
        (here / "half").touch()
        while not (here / "go").exists():
            time.sleep(0.01)
def read(offset, length):
    wait(offset)
    image.seek(offset)
    return image.read(length)
def write(offset, data):
    wait(offset)
    image.seek(offset)
    image.write(data)
"""


class QemuNbd:
    """qemu-nbd, which can be killed and started again."""

    def __init__(self, image: Path, image_format: str, *options: str) -> None:
        need("qemu-nbd", "qemu-img")
        self.socket = image.with_suffix(".sock")
        self.uri = f"nbd+unix:///?socket={self.socket}"
        command = ("qemu-nbd", "-t", "-e", "9", "-f", image_format, *options, "-k")
        self._command = [*command, str(self.socket), str(image)]
        self.start()

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        self._process = subprocess.Popen(self._command)
        wait_for(self.socket)

    def end(self) -> None:
        """Kill it, unless it has ended: it writes nothing more."""
        self._process.kill()
        self._process.wait(TIMEOUT)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


Qemu = Callable[..., QemuNbd]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.img"
    path.write_bytes(random.Random(3).randbytes(SIZE - 2 * MIB) + bytes(2 * MIB))
    return path


@pytest.fixture
def pausing(source: Path) -> Path:
    path = source.with_name("disk.py")
    path.write_text(PAUSING.format(size=SIZE, half=HALF))
    return path


@pytest.fixture
def qemu() -> Iterator[Callable[..., QemuNbd]]:
    started: list[QemuNbd] = []

    def start(image: Path, image_format: str, *options: str) -> QemuNbd:
        started.append(QemuNbd(image, image_format, *options))
        return started[-1]

    yield start
    for each in started:
        each.end()


def create(path: Path, image_format: str) -> Path:
    need("qemu-img")
    command = ["qemu-img", "create", "-q", "-f", image_format, str(path), str(SIZE)]
    subprocess.run(command, check=True)
    return path


def check_same(source: Path, target: Path, image_format: str) -> None:
    command = ["qemu-img", "compare", "-f", "raw", "-F", image_format, str(source), str(target)]
    subprocess.run(command, check=True, timeout=TIMEOUT)


@contextmanager
def copying(*arguments: object, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run `homebound copy` until the end of the block."""
    command = [sys.executable, "-m", "homebound", "copy", *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, **options) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def check_end(process: subprocess.Popen[bytes]) -> None:
    _, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, err) == (0, b"")


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
@pytest.mark.parametrize("resume", [False, True])
def test_the_target_is_killed(  # noqa: PLR0913  (fixtures)
    qemu: Qemu,
    source: Path,
    pausing: Path,
    tmp_path: Path,
    image_format: str,
    *,
    resume: bool,
):
    """With qcow2, qemu-nbd has in memory where acknowledged data is, until it is flushed."""
    target = create(tmp_path / "target.img", image_format)
    server = qemu(target, image_format)
    options = ["--resume", tmp_path / "state"] if resume else []
    with copying(pausing, server.uri, *options) as process:
        wait_for(tmp_path / "half")
        server.end()
        server.start()
        (tmp_path / "go").touch()
        check_end(process)
    server.end()
    check_same(source, target, image_format)


def test_the_target_of_a_stream_is_killed(qemu: Qemu, source: Path, tmp_path: Path):
    target = create(tmp_path / "target.img", "qcow2")
    server = qemu(target, "qcow2")
    with copying("-", server.uri, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        data = source.read_bytes()
        process.stdin.write(data[:HALF])
        server.end()
        server.start()
        process.stdin.write(data[HALF:])
        check_end(process)
    server.end()
    check_same(source, target, "qcow2")


@pytest.mark.parametrize("connections", ["1", "4"])
def test_the_source_is_killed(
    qemu: Qemu, source: Path, pausing: Path, tmp_path: Path, connections: str
):
    """The other end waits meanwhile: the copy has read what it could."""
    server = qemu(source, "raw", "-r")
    # The target is a copy of its own, which the script pauses.
    (other := tmp_path / "other").mkdir()
    target = other / "source.img"
    target.write_bytes(bytes(SIZE))
    script = other / pausing.name
    pausing.rename(script)
    with copying(server.uri, script, "--connections", connections) as process:
        wait_for(other / "half")
        server.end()
        (other / "go").touch()
        server.start()
        check_end(process)
    server.end()
    assert target.read_bytes() == source.read_bytes()


def test_it_fails_after_the_delay(qemu: Qemu, pausing: Path, tmp_path: Path):
    target = tmp_path / "target.img"
    target.write_bytes(bytes(SIZE))
    server = qemu(target, "raw")
    with copying(pausing, server.uri, "--reconnect-delay", "0.5") as process:
        wait_for(tmp_path / "half")
        server.end()
        (tmp_path / "go").touch()
        _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    assert err.startswith(f"homebound: cannot write to {server.uri!r} at offset ".encode())
    assert b"no connection to" in err
    assert err.count(b"\n") == 1


def test_an_export_that_comes_back_smaller(qemu: Qemu, pausing: Path, tmp_path: Path):
    target = tmp_path / "target.img"
    target.write_bytes(bytes(SIZE))
    server = qemu(target, "raw")
    with copying(pausing, server.uri) as process:
        wait_for(tmp_path / "half")
        server.end()
        target.write_bytes(bytes(HALF))
        server.start()
        (tmp_path / "go").touch()
        _, err = process.communicate(timeout=TIMEOUT)
    server.end()
    assert process.returncode == 1
    assert b"has come back smaller" in err
    assert err.count(b"\n") == 1
