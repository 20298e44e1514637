"""One writer an image: homebound among its own, and with QEMU in both directions."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from homebound.block import FileDisk, ImageError, ImageLocked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOLD = """
import sys
from homebound.block import FileDisk
with FileDisk(sys.argv[1], read_only=sys.argv[2] == "r"):
    print("open", flush=True)
    sys.stdin.read()
"""

LOCK_ALL = """
import fcntl, sys
file = open(sys.argv[1], "r+b")
fcntl.lockf(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def image(place: Path) -> Path:
    path = place / "image"
    path.write_bytes(bytes(1 << 20))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ImageLocked) as caught:
        FileDisk(path)
    assert caught.value.errno == errno.EBUSY
    assert isinstance(caught.value, ImageError)
    return str(caught.value)


@contextmanager
def held(*command: object) -> Iterator[int]:
    """A program that has an image open, once it has said its first word; its process."""
    with subprocess.Popen(
        list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(1)
        try:
            yield process.pid
        finally:
            process.communicate(timeout=30)


@contextmanager
def held_by_homebound(image: Path, how: str = "w") -> Iterator[int]:
    with held(sys.executable, "-c", HOLD, image, how) as pid:
        yield pid


@contextmanager
def held_by_qemu(image: Path, *options: str) -> Iterator[int]:
    if shutil.which("qemu-io") is None:
        pytest.skip("qemu-io (Debian: qemu-utils) is not installed")
    with held("qemu-io", "-f", "raw", *options, image) as pid:
        yield pid


class TestHomebound:
    def test_has_one_writer(self, image: Path):
        with held_by_homebound(image) as pid:
            assert refusal(image) == (
                f"cannot open image '{image}': another homebound (process {pid}) "
                "has it open for writing"
            )
        FileDisk(image).close()

    def test_has_one_writer_in_a_process_too(self, image: Path):
        with FileDisk(image):
            assert f"this process ({os.getpid()}) has it open" in refusal(image)
        FileDisk(image).close()

    @pytest.mark.parametrize("how", ["w", "r"])
    def test_has_readers_beside_a_writer_or_a_reader(self, image: Path, how: str):
        with held_by_homebound(image, how), FileDisk(image, read_only=True):
            FileDisk(image, read_only=True).close()

    def test_writes_beside_a_reader(self, image: Path):
        with held_by_homebound(image, "r"), FileDisk(image) as disk:
            disk.blocking.write(0, b"x")

    def test_does_not_lock_if_told_so(self, image: Path):
        with held_by_homebound(image), FileDisk(image, lock=False):
            pass

    def test_a_refused_one_leaves_no_lock(self, image: Path):
        with FileDisk(image):
            refusal(image)
        FileDisk(image).close()


@pytest.mark.peers
class TestQEMU:
    def test_is_named(self, image: Path):
        with held_by_qemu(image) as pid:
            assert refusal(image) == (
                f"cannot open image '{image}': QEMU (qemu-io, process {pid}) "
                "has it open for writing"
            )
            FileDisk(image, read_only=True).close()
            FileDisk(image, lock=False).close()

    def test_reader_shares(self, image: Path):
        with held_by_qemu(image, "-r"), FileDisk(image):
            pass

    @pytest.mark.parametrize("how", ["w", "r"])
    def test_is_kept_out_by_a_writer_only(self, image: Path, how: str):
        if shutil.which("qemu-io") is None:
            pytest.skip("qemu-io (Debian: qemu-utils) is not installed")
        command = ["qemu-io", "-f", "raw", "-c", "write 0 512", str(image)]
        with FileDisk(image, read_only=how == "r"):
            done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
        if how == "r":
            assert "wrote 512/512" in done.stdout
        else:
            assert re.search('Failed to get "write" lock', done.stderr)
            assert done.returncode == 1

    def test_reads_beside_a_writer(self, image: Path):
        if shutil.which("qemu-io") is None:
            pytest.skip("qemu-io (Debian: qemu-utils) is not installed")
        command = ["qemu-io", "-r", "-f", "raw", "-c", "read 0 512", str(image)]
        with FileDisk(image):
            done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
        assert "read 512/512" in done.stdout


def test_the_lock_of_a_process_is_found_too(image: Path):
    """A lock of the older kind, over all of the file, as virtlockd and others have it."""
    with held(sys.executable, "-c", LOCK_ALL, image) as pid:
        assert re.search(rf"another program \(python.*, process {pid}\)", refusal(image))


def test_a_file_system_without_locks_is_served(image: Path, monkeypatch: pytest.MonkeyPatch):
    def without_locks(*_: object) -> bytes:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    with FileDisk(image):
        monkeypatch.setattr(fcntl, "fcntl", without_locks)
        FileDisk(image).close()


def test_a_failing_lock_is_told(image: Path, monkeypatch: pytest.MonkeyPatch):
    lock = fcntl.fcntl

    def out_of_locks(fd: int, command: int, argument: bytes) -> bytes | int:
        if command == fcntl.F_OFD_SETLK:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        return lock(fd, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", out_of_locks)
    with pytest.raises(ImageError, match=r"cannot lock image '.*': No locks available"):
        FileDisk(image)
