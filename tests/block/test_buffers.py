"""Buffers of any kind: a disk takes their bytes, however many items these are, or refuses them."""

from __future__ import annotations

import asyncio
from array import array
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.block import Disk, FileDisk, LogDisk, MemoryDisk, OverlayDisk, SliceDisk, open_disk

from ..testing.broken_disks import Simple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATTERN = bytes(range(256)) * 4
STRIDED = memoryview(bytearray(8))[::2]
SIZE = 1 << 16
KINDS = ("memory", "file", "overlay", "slice", "log", "user", "script")
SCRIPT = """
    size = 1 << 16
    data = bytearray(size)
    async def read(offset, length): return data[offset : offset + length]
    def write(offset, data_): data[offset : offset + len(data_)] = data_
"""


class NoStream:
    def write(self, text: str) -> None: ...


@pytest.fixture
def directory(tmp_path: Path, script: Callable[[str], str]) -> Path:
    (tmp_path / "image").write_bytes(bytes(2 * SIZE))
    script(SCRIPT)
    return tmp_path


@contextmanager
def opened(kind: str, directory: Path) -> Iterator[Disk]:
    with FileDisk(directory / "image") as file, MemoryDisk(SIZE) as memory:
        made: dict[str, Callable[[], Disk]] = {
            "memory": lambda: memory,
            "file": lambda: file,
            "overlay": lambda: OverlayDisk(file, directory / "overlay"),
            "slice": lambda: SliceDisk(file, 0, SIZE),
            "log": lambda: LogDisk(memory, NoStream()),
            "user": Simple,
            "script": lambda: homebound.block_on(open_disk(directory / "disk.py")),
        }
        with made[kind]() as disk:
            yield disk


def items(data: bytes) -> list[Any]:
    """The same bytes, in items of other sizes, kinds and numbers."""
    view = memoryview(bytearray(data))
    return [array("I", data), view.cast("I"), view.cast("c"), view.cast("B", (4, len(data) // 4))]


@pytest.mark.parametrize("kind", KINDS)
def test_it_writes_the_bytes_of_any_buffer(kind: str, directory: Path):
    async def main() -> None:
        with opened(kind, directory) as disk:
            for data in items(PATTERN):
                for write in (disk.write, _in_thread(disk.write_sync)):
                    await disk.write(0, b"?" * 8192)
                    await write(512, data)
                    assert await disk.read(0, 8192) == b"?" * 512 + PATTERN + b"?" * 6656

    homebound.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_it_fills_any_buffer(kind: str, directory: Path):
    async def main() -> None:
        with opened(kind, directory) as disk:
            await disk.write(512, PATTERN)
            for read in (disk.read_into, _in_thread(disk.read_into_sync)):
                for buffer in (bytearray(1024), *items(bytes(1024))):
                    await read(512, buffer)
                    assert memoryview(buffer).tobytes() == PATTERN

    homebound.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_no_buffer_reaches_past_the_end(kind: str, directory: Path):
    async def main() -> None:
        with opened(kind, directory) as disk:
            for data in items(PATTERN):
                for use in (disk.write, disk.read_into, _in_thread(disk.write_sync)):
                    with pytest.raises(ValueError, match="are not inside"):
                        await use(disk.size - 512, data)
        assert (directory / "image").read_bytes()[SIZE:] == bytes(SIZE)

    homebound.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_it_refuses_what_has_no_bytes_in_a_row(kind: str, directory: Path):
    async def main() -> None:
        with opened(kind, directory) as disk:
            for write in (disk.write, _in_thread(disk.write_sync)):
                no_bytes: tuple[Any, ...] = ("text", [1, 2], 5, None, STRIDED)
                for data in no_bytes:
                    with pytest.raises((TypeError, BufferError)):
                        await write(0, data)
            for read in (disk.read_into, _in_thread(disk.read_into_sync)):
                no_room: tuple[Any, ...] = (PATTERN, memoryview(PATTERN), None, STRIDED)
                for buffer in no_room:
                    with pytest.raises((TypeError, BufferError)):
                        await read(0, buffer)
            empty: Any = array("I")
            await disk.write(0, empty)
            await disk.read_into(0, empty)
            assert await disk.read(0, 1024) == bytes(1024)

    homebound.run(main())


def _in_thread(call: Callable[..., Any]) -> Callable[..., Any]:
    async def called(*args: Any) -> Any:
        return await asyncio.to_thread(call, *args)

    return called
