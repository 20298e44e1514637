"""Images: what can be wrong with them, and what the file behind one looks like."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.block import DiskClosed, DiskError, DiskReadOnly, FileDisk, ImageError, OutOfRange
from homebound.block._rawfile import RawFile

from .programs import run_program, without_fallocate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

SIZE = 1 << 20


@pytest.fixture
def image(place: Path) -> Path:
    path = place / "image"
    path.write_bytes(b"\xaa" * SIZE)
    return path


@pytest.fixture
def only_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have requests wait in workers, whose system calls a test can replace."""
    monkeypatch.setenv("HOMEBOUND_IO_URING", "0")


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def size(path: Path) -> int:
    return path.stat().st_size


def content(path: Path) -> bytes:
    return path.read_bytes()


class TestOpening:
    def refusal(self, path: Path | str, *, read_only: bool = False) -> ImageError:
        with pytest.raises(ImageError) as caught:
            FileDisk(path, read_only=read_only)
        assert re.match(r"cannot open image '.*': \w+", str(caught.value))
        return caught.value

    def test_missing(self, tmp_path: Path):
        error = self.refusal(tmp_path / "image")
        assert error.errno == errno.ENOENT
        assert str(error).endswith(f": {os.strerror(errno.ENOENT)}")

    @pytest.mark.parametrize("read_only", [False, True])
    def test_directory(self, tmp_path: Path, *, read_only: bool):
        error = self.refusal(tmp_path, read_only=read_only)
        assert error.errno == errno.EISDIR
        assert str(error).endswith(f": {os.strerror(errno.EISDIR)}")

    def test_empty(self, tmp_path: Path):
        (tmp_path / "image").touch()
        error = self.refusal(tmp_path / "image")
        assert error.errno == errno.EINVAL
        assert "it is empty; give it a size first" in str(error)

    @pytest.mark.parametrize("read_only", [False, True])
    def test_pipe_does_not_make_it_wait(self, tmp_path: Path, *, read_only: bool):
        os.mkfifo(tmp_path / "pipe")
        error = self.refusal(tmp_path / "pipe", read_only=read_only)
        assert "neither a file nor a block device" in str(error)

    def test_socket(self, tmp_path: Path):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "s"))
            assert "it is a socket" in str(self.refusal(tmp_path / "s"))

    def test_character_device(self):
        assert "neither a file nor a block device" in str(self.refusal("/dev/null"))

    def test_file_without_a_size(self):
        """Files in /proc are made up as they are read."""
        error = self.refusal("/proc/version", read_only=True)
        assert "it has no size that can be told (Invalid argument)" in str(error)

    def test_not_writable(self, tmp_path: Path):
        """Asked of a program that is being executed, which even root may not write to."""
        program = tmp_path / "program"
        program.write_bytes(b"#!/bin/sh\n")
        if os.geteuid():
            program.chmod(0o444)
            error = self.refusal(program)
        else:
            error = self.refusal(os.path.realpath(sys.executable))
        assert "(for writing; it can be opened read-only)" in str(error)

    def test_read_only(self, image: Path):
        async def main() -> None:
            with FileDisk(image, read_only=True) as disk:
                assert await disk.read(0, 4) == b"\xaa" * 4
                for change in (disk.write(0, b"x"), disk.trim(0, 1), disk.write_zeroes(0, 1)):
                    with pytest.raises(DiskReadOnly, match="opened for reading only"):
                        await change
                await disk.flush()
            assert content(image) == b"\xaa" * SIZE

        homebound.run(main())

    def test_no_descriptor_is_inherited(self, image: Path):
        with FileDisk(image) as disk:
            assert not os.get_inheritable(disk.blocking.fd)


class TestChanges:
    def test_trim_makes_a_hole(self, image: Path):
        async def main() -> None:
            with FileDisk(image) as disk:
                before = allocated(image)
                await disk.trim(4096, SIZE // 2)
                assert allocated(image) <= before - SIZE // 2
                assert size(image) == SIZE

        homebound.run(main())

    @pytest.mark.parametrize("no_hole", [False, True])
    def test_zeroes_with_and_without_a_hole(self, image: Path, *, no_hole: bool):
        async def main() -> None:
            with FileDisk(image) as disk:
                before = allocated(image)
                await disk.write_zeroes(0, SIZE // 2, no_hole=no_hole)
                assert (allocated(image) >= before) == no_hole
                assert await disk.read(0, SIZE) == bytes(SIZE // 2) + b"\xaa" * (SIZE // 2)

        homebound.run(main())

    def test_zeroes_where_the_file_system_does_not_help(self, image: Path):
        without_fallocate(
            """
            import sys, homebound
            from homebound.block import FileDisk

            async def main(image, size):
                with FileDisk(image) as disk:
                    await disk.trim(0, size)  # a hint, and so it is
                    assert await disk.read(0, 1) == b"\\xaa"
                    await disk.write_zeroes(1, size - 2)
                    assert await disk.read(0, size) == b"\\xaa" + bytes(size - 2) + b"\\xaa"

            homebound.run(main(sys.argv[1], int(sys.argv[2])))
            """,
            image,
            SIZE,
        )

    def test_ranges_are_checked(self, image: Path):
        async def main() -> None:
            with FileDisk(image) as disk:
                for wrong in (
                    disk.read(SIZE, 1),
                    disk.write(SIZE - 1, b"ab"),
                    disk.trim(0, SIZE + 1),
                    disk.write_zeroes(-1, 1),
                ):
                    with pytest.raises(OutOfRange, match="are not inside"):
                        await wrong
            assert size(image) == SIZE

        homebound.run(main())


def test_an_image_that_has_become_shorter_is_an_error_and_no_damage(image: Path):
    async def main() -> None:
        with FileDisk(image) as disk:
            os.truncate(image, 5000)
            buffer = memoryview(bytearray(4096))
            assert not disk.try_read_into(4096, buffer)
            with pytest.raises(DiskError, match="has become shorter: nothing is left at 5000") as e:
                await disk.read(4096, 4096)
            assert e.value.errno == errno.EIO
            assert await disk.read(0, 5000) == b"\xaa" * 5000

    homebound.run(main())


@pytest.mark.usefixtures("only_workers")
class TestFlush:
    def test_once_failed_it_fails_for_ever(self, image: Path, monkeypatch: pytest.MonkeyPatch):
        def fail(_: int) -> None:
            raise OSError(errno.EIO, "medium error")

        async def main() -> None:
            with FileDisk(image) as disk:
                disk.blocking.volatile = False
                await disk.flush()
                await disk.write(0, b"x")
                with monkeypatch.context() as patched:
                    patched.setattr(os, "fdatasync", fail)
                    with pytest.raises(OSError, match="medium error"):
                        await disk.flush()
                with pytest.raises(DiskError, match=r"failed before, so data is lost: .*medium"):
                    await disk.flush()
                with pytest.raises(DiskError, match="failed before"):
                    await disk.trim(0, 512, fua=True)

        homebound.run(main())

    @pytest.mark.parametrize("change", ["write", "attempt", "trim", "zeroes", "fast zeroes"])
    def test_with_nothing_to_do_asks_the_kernel_for_nothing(
        self, image: Path, monkeypatch: pytest.MonkeyPatch, change: str
    ):
        synced: list[int] = []
        monkeypatch.setattr(os, "fdatasync", synced.append)

        async def main() -> None:
            with FileDisk(image) as disk:
                disk.blocking.volatile = False
                assert not disk.try_flush()  # others may have written to the file before
                for number in (1, 2):
                    await disk.flush()
                    assert disk.try_flush()
                    await disk.flush()
                    assert len(synced) == number
                    match change:
                        case "write":
                            await disk.write(0, b"x")
                        case "attempt":
                            disk.try_write(0, b"x")
                        case "trim":
                            await disk.trim(0, 4096)
                        case "zeroes":
                            await disk.write_zeroes(0, 4096)
                        case _:
                            await disk.fast_zeroes(0, 4096)
                    assert not disk.try_flush()
                disk.close()
                assert not disk.try_flush()  # the operation says that it is closed

        homebound.run(main())

    def test_fua_is_stable_although_others_flush(
        self, image: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """What it writes is not yet noted as a change when it makes it stable."""
        synced: list[int] = []
        monkeypatch.setattr(os, "fdatasync", synced.append)

        async def main() -> None:
            with FileDisk(image) as disk:
                disk.blocking.volatile = False
                await disk.flush()
                await disk.trim(0, 4096, fua=True)
                await disk.write_zeroes(0, 4096, fua=True)
                assert len(synced) == 3

        homebound.run(main())

    def test_does_not_end_before_another_that_covers_the_same(
        self,
        image: Path,
        in_thread: Callable[..., Future[Any]],
        monkeypatch: pytest.MonkeyPatch,
    ):
        begun, go_on = threading.Semaphore(0), threading.Event()

        def slow(_: int) -> None:
            begun.release()
            assert go_on.wait(20)

        monkeypatch.setattr(os, "fdatasync", slow)
        with FileDisk(image) as disk:
            disk.blocking.volatile = False
            disk.blocking.write(0, b"x")
            flushes = [in_thread(disk.blocking.flush)]
            assert begun.acquire(timeout=20)
            assert not disk.try_flush()
            flushes.append(in_thread(disk.blocking.flush))
            assert begun.acquire(timeout=20)  # it waits for the kernel too
            go_on.set()
            for flush in flushes:
                flush.result(20)
            assert disk.try_flush()

    def test_is_not_done_while_one_that_covers_the_same_fails(self, image: Path):
        """However the looks of the one, and the end of the other, fall between each other."""

        class Failing(RawFile):
            failing: Any = None  # a sync under way

            @property
            def flushing(self) -> int:
                if self.failing is not None:  # it fails just before this look
                    failing, self.failing = self.failing, None
                    error = OSError(errno.EIO, "medium error")
                    assert not failing.__exit__(OSError, error, None)
                return self.under_way

            @flushing.setter
            def flushing(self, number: int) -> None:
                self.under_way = number

        raw = Failing(image, read_only=False)
        raw.volatile = False
        sync = raw.syncing()
        sync.__enter__()
        raw.failing = sync
        assert not raw.is_stable()
        assert raw.failing is None
        raw.close()

    def test_fua_beside_a_sync_that_fails(self, image: Path, monkeypatch: pytest.MonkeyPatch):
        """The kernel reports the failure of a write-back to one of those that wait for it."""
        with FileDisk(image) as disk:
            raw = disk.blocking
            raw.volatile = False
            real = os.pwritev

            def write(*arguments: Any) -> int:
                raw.lose(OSError(errno.EIO, "medium error"))
                return real(*arguments[:3])

            monkeypatch.setattr(os, "pwritev", write)
            with pytest.raises(DiskError, match="failed before"):
                raw.write(0, b"x", fua=True)
            raw.write(0, b"x")

    def test_fua_where_there_is_no_flag_for_it(self, image: Path):
        run_program(
            """
            import os, sys

            os.environ["HOMEBOUND_IO_URING"] = "0"
            del os.RWF_DSYNC  # as on macOS
            synced = []
            os.fdatasync = synced.append

            import homebound
            from homebound.block import FileDisk

            async def main(image):
                with FileDisk(image) as disk:
                    disk.blocking.volatile = False
                    await disk.write(0, b"x", fua=True)
                    assert synced == [disk.blocking.fd]

            homebound.run(main(sys.argv[1]))
            """,
            image,
        )


class TestClosed:
    def test_is_said_by_everything(self, image: Path):
        async def main() -> None:
            disk = FileDisk(image)
            disk.close()
            disk.close()
            for late in (disk.read(0, 1), disk.write(0, b"x"), disk.flush(), disk.trim(0, 1)):
                with pytest.raises(DiskClosed, match="is closed"):
                    await late
            disk._write_flags = 0
            with pytest.raises(DiskClosed, match="is closed"):
                disk.try_write(0, b"x")
            disk._read_flags = 0
            with pytest.raises(DiskClosed, match="is closed"):
                disk.try_read_into(0, memoryview(bytearray(1)))

        homebound.run(main())

    def test_a_call_under_way_keeps_its_descriptor(self, image: Path):
        disk = FileDisk(image)
        with disk.blocking._use(0, 0) as fd:
            disk.close()
            assert os.pread(fd, 1, 0) == b"\xaa"
            with pytest.raises(DiskClosed):
                disk.blocking.flush()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)

    def test_an_attempt_under_way_keeps_it_too(self, image: Path, tmp_path: Path):
        """Its number could else be another file's in the middle of the attempt."""
        (tmp_path / "other").write_bytes(b"\xbb" * SIZE)
        outcomes: list[object] = []

        def attempt(disk: FileDisk) -> None:
            buffer = bytearray(4096)
            try:
                while True:
                    disk.try_read_into(0, memoryview(buffer))
                    outcomes.append(bytes(buffer[:1]))
            except DiskClosed as error:
                outcomes.append(error)

        for _ in range(20):
            disk = FileDisk(image)
            disk._read_flags = 0
            thread = threading.Thread(target=attempt, args=(disk,))
            thread.start()
            while not outcomes:
                time.sleep(0)
            disk.close()
            with FileDisk(tmp_path / "other", read_only=True):
                thread.join()
            assert isinstance(outcomes.pop(), DiskClosed)
            assert set(outcomes) == {b"\xaa"}
            outcomes.clear()

    def test_closed_in_the_middle_of_an_attempt(self, image: Path, monkeypatch: pytest.MonkeyPatch):
        real = os.preadv
        disk = FileDisk(image)
        disk._read_flags = 0

        def preadv(fd: int, *args: Any) -> int:
            disk.close()
            return real(fd, *args)

        fd = disk.blocking.fd
        with monkeypatch.context() as patched:
            patched.setattr(os, "preadv", preadv)
            buffer = bytearray(1)
            assert disk.try_read_into(0, memoryview(buffer))
            assert buffer == b"\xaa"
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)

    def test_forgetting_it_is_told(self, image: Path):
        disk = FileDisk(image)
        with pytest.warns(ResourceWarning, match="was not closed"):
            del disk


def test_repr(image: Path):
    with FileDisk(image, read_only=True) as disk:
        assert repr(disk) == f"<FileDisk '{image}' ({SIZE} bytes, read-only)>"


@contextmanager
def loop_device(tmp_path: Path, *options: str) -> Iterator[str]:
    """One of SIZE zeroes, where the machine lets us have one."""
    image = tmp_path / "image"
    image.write_bytes(bytes(SIZE))
    made = subprocess.run(
        ["losetup", "--find", "--show", *options, image],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"no loop device: {made.stderr.strip()}")
    device = made.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_block_device(tmp_path: Path):

    async def main(device: str) -> None:
        with FileDisk(device) as disk:
            assert disk.size == SIZE
            await disk.write(4096, b"x" * 4096, fua=True)
            await disk.write_zeroes(4096, 1024)
            await disk.trim(0, 4096)
            await disk.flush()
            assert await disk.read(4096, 4096) == bytes(1024) + b"x" * 3072

    with loop_device(tmp_path) as device:
        homebound.run(main(device))


def test_read_only_block_device(tmp_path: Path):
    with loop_device(tmp_path, "--read-only") as device:
        with pytest.raises(ImageError, match=r"a read-only device.*be opened read-only") as e:
            FileDisk(device)
        assert e.value.errno == errno.EROFS
        with FileDisk(device, read_only=True) as disk:
            assert disk.size == SIZE
