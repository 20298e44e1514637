"""Looks at where images have data and holes: a loop has one made at a time."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

import homebound
from homebound.block import Extent, FileDisk, Qcow2Disk, _rawfile, _scans

from .qcow2_images import mixed

if TYPE_CHECKING:
    from pathlib import Path

    from homebound.block import Disk

SIZE = 1 << 20


def a_file(place: Path) -> Disk:
    image = place / "image"
    image.write_bytes(bytes(SIZE))
    return FileDisk(image)


def status_of(disk: Disk) -> asyncio.Task[list[Extent]]:
    return asyncio.create_task(disk.block_status(0, SIZE))


def test_the_second_look_begins_after_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A client that floods with them takes one worker, not all."""
    monkeypatch.setattr(_scans, "_LONG", 3600)
    second = threading.Event()
    together = list[bool]()

    def look(_: int, __: int, length: int) -> list[Extent]:
        if not together:
            together.append(False)
            together[0] = second.wait(0.2)  # long enough for it to begin, if it may
        second.set()
        return [Extent(length)]

    monkeypatch.setattr(_rawfile, "extents_of", look)

    async def main() -> None:
        with a_file(tmp_path) as disk:
            for found in await asyncio.gather(*(status_of(disk) for _ in range(4))):
                assert found == [Extent(SIZE)]

    homebound.run(main())
    assert together == [False]


def test_a_read_ahead_that_has_to_find_its_clusters_is_such_a_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (image := tmp_path / "image.qcow2").write_bytes(mixed()[0])
    monkeypatch.setattr(_scans, "_LONG", 3600)
    other = threading.Event()
    first, together = list[int](), list[bool]()

    def cache(*_: object) -> None:
        if not first:
            first.append(threading.get_ident())
            together.append(other.wait(0.2))  # long enough for another worker, if it may begin
        elif threading.get_ident() != first[0]:
            other.set()

    monkeypatch.setattr(_rawfile.RawFile, "cache", cache)

    async def main() -> None:
        with Qcow2Disk(image) as disk:
            await asyncio.gather(*(disk.cache(0, disk.size) for _ in range(4)))

    homebound.run(main())
    assert together == [False]


def test_a_look_that_hangs_lets_the_next_one_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    go_on, looks = threading.Event(), list[int]()

    def look(_: int, __: int, length: int) -> list[Extent]:
        looks.append(length)
        if len(looks) == 1:
            go_on.wait()
        return [Extent(length)]

    monkeypatch.setattr(_rawfile, "extents_of", look)

    async def main() -> None:
        with a_file(tmp_path) as disk:
            first = status_of(disk)
            try:
                assert await status_of(disk) == [Extent(SIZE)]
                assert not first.done()
            finally:
                go_on.set()
            assert await first == [Extent(SIZE)]

    homebound.run(main())


def test_a_look_that_is_cancelled_leaves_its_turn_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_scans, "_LONG", 3600)
    began, go_on = threading.Event(), threading.Event()

    def look(_: int, __: int, length: int) -> list[Extent]:
        began.set()
        go_on.wait()
        return [Extent(length)]

    monkeypatch.setattr(_rawfile, "extents_of", look)

    async def main() -> None:
        with a_file(tmp_path) as disk:
            first, waiting, last = status_of(disk), status_of(disk), status_of(disk)
            await homebound.to_worker(began.wait)
            first.cancel()
            waiting.cancel()
            go_on.set()
            assert await last == [Extent(SIZE)]
            assert first.cancelled()
            assert waiting.cancelled()

    homebound.run(main())


def test_a_look_that_is_struck_as_it_begins_gives_its_turn_back(monkeypatch: pytest.MonkeyPatch):
    """As by what a signal handler raises."""

    def strike(*_: object) -> None:
        raise MemoryError

    async def main() -> str:
        with monkeypatch.context() as patched:
            patched.setattr(asyncio.get_running_loop(), "call_later", strike)
            with pytest.raises(MemoryError):
                await _scans.scan(int)
        return await asyncio.wait_for(_scans.scan(lambda: "looked"), 30)

    assert homebound.run(main()) == "looked"
