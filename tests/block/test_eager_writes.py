"""Buffered writes in the home thread: when they are risked, and what ends that."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from homebound.block import FileDisk
from homebound.block._patience import Patience

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = b"x" * 4096


@pytest.fixture
def disk() -> Iterator[FileDisk]:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        image = Path(directory, "image")
        image.write_bytes(bytes(1 << 22))
        with FileDisk(image) as disk:
            # As on a file system that can tell whether a read would wait, but not a write.
            if not disk._read_flags:
                pytest.skip("no local file system at /var/tmp")
            disk._write_flags = None
            yield disk


def test_whole_pages_are_written_at_once(disk: FileDisk):
    assert disk.try_write(8192, PAGE)
    assert Path(disk.path).read_bytes()[8192 : 8192 + 4097] == PAGE + b"\0"


def test_parts_of_pages_and_large_pieces_are_not(disk: FileDisk):
    assert not disk.try_write(1, PAGE)
    assert not disk.try_write(0, PAGE[:-1])
    assert not disk.try_write(0, PAGE * 257)
    assert Path(disk.path).read_bytes() == bytes(1 << 22)


def test_not_during_a_flush(disk: FileDisk):
    disk.blocking.flushing = 1
    assert not disk.try_write(0, PAGE)
    disk.blocking.flushing = 0
    assert disk.try_write(0, PAGE)


def test_not_if_not_wanted(disk: FileDisk):
    with FileDisk(disk.path, eager_writes=False) as careful:
        careful._write_flags = None
        assert not careful.try_write(0, PAGE)


def test_after_a_slow_one_there_is_a_break(disk: FileDisk, monkeypatch: pytest.MonkeyPatch):
    times = iter([10.0, 10.5, 10.55, 10.59, 10.7, 10.7])
    monkeypatch.setattr("homebound.block._file.monotonic", lambda: next(times))
    assert disk.try_write(0, PAGE)  # from 10.0 to 10.5, which is long
    assert not disk.try_write(0, PAGE)
    assert not disk.try_write(0, PAGE)
    assert disk.try_write(0, PAGE)


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
