"""Buffered writes in the home thread: when they are risked, and what ends that."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from homebound.block import FileDisk
from homebound.block._patience import Patience
from homebound.block._stable_pages import has_stable_pages
from homebound.testing import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

PAGE = b"x" * 4096


@pytest.fixture
def image(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """On a file system that can tell whether a read would wait, but not a write."""
    pwritev = os.pwritev

    def refusing(fd: int, buffers: Any, offset: int, flags: int = 0) -> int:
        if flags:
            raise OSError(errno.EOPNOTSUPP, "no such flag here")
        return pwritev(fd, buffers, offset, flags)

    monkeypatch.setattr(os, "pwritev", refusing)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        image = Path(directory, "image")
        image.write_bytes(bytes(1 << 22))
        yield image


@pytest.fixture
def disk(image: Path) -> Iterator[FileDisk]:
    with FileDisk(image) as disk:
        if not disk._read_flags:
            pytest.skip("no local file system at /var/tmp")
        assert not disk.try_write(0, PAGE)  # the first attempt shows that it cannot be tried
        yield disk


def test_whole_pages_are_written_at_once(disk: FileDisk):
    assert disk.try_write(8192, PAGE)
    assert Path(disk.path).read_bytes()[8192 : 8192 + 4097] == PAGE + b"\0"


def test_large_pieces_are_not(disk: FileDisk):
    assert not disk.try_write(0, PAGE * 257)
    assert Path(disk.path).read_bytes() == bytes(1 << 22)


@pytest.mark.parametrize(
    ("offset", "length", "edges"),
    [(1, 4095, [0]), (0, 4095, [0]), (5, 10, [0]), (1, 4096, [0, 1]), (4000, 9000, [0, 3])],
)
def test_parts_of_pages_are_if_those_are_in_memory(
    disk: FileDisk, offset: int, length: int, edges: list[int]
):
    data = (b"y" * 9000)[:length]
    fd = disk.blocking.fd
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # read a page, and none after it

    def write(in_memory: set[int]) -> bool:
        os.fdatasync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        for page in in_memory:
            os.pread(fd, 1, page * 4096)
        return disk.try_write(offset, data)

    def leave(in_memory: set[int]) -> bool:
        return not write(in_memory)

    # A kernel may keep a page that it was told to forget, and forget one that was just read. One
    # that looks for a page may begin to read it, and have it when the thread goes on.
    for missing in edges:
        until(partial(leave, set(edges) - {missing}))
    until(partial(write, set(edges)))
    expected = bytearray(1 << 22)
    expected[offset : offset + length] = data
    assert Path(disk.path).read_bytes() == expected


@pytest.mark.parametrize("stable_pages", [False, True])
def test_not_during_a_flush_if_pages_may_not_change_then(
    disk: FileDisk,
    in_thread: Callable[..., Future[Any]],
    monkeypatch: pytest.MonkeyPatch,
    stable_pages: bool,  # noqa: FBT001
):
    monkeypatch.setattr(disk, "_stable_pages", stable_pages)
    fdatasync, begun, go_on = os.fdatasync, threading.Event(), threading.Event()

    def slow(fd: int) -> None:
        begun.set()
        assert go_on.wait(20)
        fdatasync(fd)

    monkeypatch.setattr(os, "fdatasync", slow)
    flushed = in_thread(disk.blocking.flush)
    assert begun.wait(20)
    if stable_pages:
        assert not disk.try_write(0, PAGE)
    else:
        until(lambda: disk.try_write(0, PAGE))
    go_on.set()
    flushed.result(20)
    until(lambda: disk.try_write(0, PAGE))


def test_what_the_kernel_says_of_pages(tmp_path: Path):
    """A disk says it, a partition's disk says it, and of all else it is unknown."""
    with (tmp_path / "file").open("w+b") as file:
        device = os.fstat(file.fileno()).st_dev
        about = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
        known = [each for each in (about, about.parent) if (each / "queue/stable_writes").exists()]
        said = (known[0] / "queue/stable_writes").read_text().strip() != "0" if known else True
        assert has_stable_pages(file.fileno()) is said
    with Path("/proc/self/stat").open("rb") as file:
        assert has_stable_pages(file.fileno())


def test_not_if_not_wanted(disk: FileDisk):
    with FileDisk(disk.path, eager_writes=False, lock=False) as careful:
        assert not any(careful.try_write(0, PAGE) for _ in range(3))


def test_after_a_slow_one_there_is_a_break(disk: FileDisk, monkeypatch: pytest.MonkeyPatch):
    """The next is tried a tenth of a second after its end, or later, and none in between."""
    pwrite = os.pwrite
    began: list[float] = []
    ended: list[float] = []

    def slow(fd: int, data: Any, offset: int) -> int:
        began.append(time.monotonic())
        time.sleep(0.011)  # more than it has patience for
        ended.append(time.monotonic())
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", slow)
    assert disk.try_write(0, PAGE)
    until(lambda: disk.try_write(0, PAGE))
    assert began[1] - ended[0] >= 0.1
    assert len(began) == 2


def test_breaks_grow_as_long_as_they_do_not_help():
    patience = Patience()
    now, breaks = 100.0, []
    for _ in range(9):
        assert not patience.lost(now)
        patience.tried(now, now + 0.2)
        now += 0.2
        breaks.append(round(patience._not_before - now, 3))
        now = patience._not_before
    assert breaks == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    now += 1000
    patience.tried(now, now + 0.001)
    assert not patience.lost(now + 0.001)
    patience.tried(now, now + 0.2)
    assert patience.lost(now + 0.2)
    assert not patience.lost(now + 0.31)
