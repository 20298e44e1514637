"""Overlays that meet faults below them, and overlay files that are refused."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from typing import TYPE_CHECKING, Any

import pytest

from homebound.block import (
    DiskClosed,
    DiskError,
    DiskReadOnly,
    Fault,
    FaultDisk,
    FileDisk,
    ImageError,
    LogDisk,
    MemoryDisk,
    OverlayDisk,
)
from homebound.block import _overlay_format as fmt

from .overlays import BLOCK, SIZE, content, names, read_all, run

if TYPE_CHECKING:
    from pathlib import Path


class TestFaults:
    def test_no_space_in_the_middle_of_a_copy(
        self, base: FileDisk, image: Path, place: Path, monkeypatch: pytest.MonkeyPatch
    ):
        real = os.pwritev

        def pwritev(fd: int, buffers: list[Any], offset: int, flags: int = 0) -> int:
            if offset <= 1 << 16:
                return real(fd, buffers, offset, flags)
            real(fd, [memoryview(buffers[0])[:1000]], offset)  # as far as there is room
            raise OSError(errno.ENOSPC, "No space left on device")

        def pwrite(fd: int, data: Any, offset: int) -> int:
            return pwritev(fd, [data], offset)

        async def main() -> None:
            model = content(image)
            with OverlayDisk(base, place / "overlay") as disk:
                with monkeypatch.context() as patched:
                    patched.setattr(os, "pwritev", pwritev)
                    patched.setattr(os, "pwrite", pwrite)
                    for change in (
                        disk.write(50_000, b"x" * 10_000),
                        disk.write(50_000, b"x", fua=True),
                        disk.write_zeroes(50_000, 100),
                    ):
                        with pytest.raises(OSError, match="No space") as caught:
                            await change
                        assert caught.value.errno == errno.ENOSPC
                        assert await read_all(disk) == model
                await disk.write(50_000, b"x")
                assert await disk.read(50_000, 2) == b"x" + model[50_001:50_002]
            with OverlayDisk(base, place / "overlay") as disk:
                assert await disk.read(50_000, 2) == b"x" + model[50_001:50_002]

        run(main)

    def test_a_flush_that_fails_is_told_and_made_good(
        self, base: FileDisk, place: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """Not on a journal that has no room: then all is still there to be written."""

        def full(*_: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        async def main() -> None:
            with OverlayDisk(base, place / "overlay") as disk:
                await disk.write(0, b"x")
                with monkeypatch.context() as patched:
                    patched.setattr(os, "pwritev", full)
                    with pytest.raises(OSError, match="No space"):
                        await disk.flush()
                await disk.flush()
                assert not disk._states.has_changed()

        run(main)

    def test_base_that_fails(self):
        async def main() -> None:
            with MemoryDisk(SIZE) as below:
                rules = [Fault(command="read", range=range(8192, 8193), error="EIO")]
                with FaultDisk(below, rules) as base, OverlayDisk(base) as disk:
                    await disk.write(0, b"x")
                    with pytest.raises(DiskError, match="on purpose"):
                        await disk.write(8193, b"x")
                    with pytest.raises(DiskError, match="on purpose"):
                        await disk.read(8000, 1000)
                    await disk.write(8192, b"y" * BLOCK)
                    assert await disk.read(8000, 1000) == bytes(192) + b"y" * 808

        run(main)

    def test_cancelled_at_any_point_of_a_merge(self, place: Path):
        """Either the old block or the new one; and no lock is left behind."""

        async def main() -> None:
            with (
                MemoryDisk(SIZE) as below,
                FaultDisk(below, [Fault(command="read", delay=0)]) as base,
            ):
                await below.write(0, b"o" * SIZE)
                for step in range(30):
                    with OverlayDisk(base, place / f"overlay{step}") as disk:
                        task = asyncio.create_task(disk.write(100, b"n" * 100, fua=True))
                        for _ in range(step):
                            await asyncio.sleep(0)
                        task.cancel()
                        await asyncio.gather(task, return_exceptions=True)
                        block = await disk.read(0, BLOCK)
                        old = b"o" * BLOCK
                        assert block in (old, old[:100] + b"n" * 100 + old[200:])
                        await disk.write(0, b"m" * BLOCK, fua=True)
                        assert await disk.read(0, BLOCK) == b"m" * BLOCK

        run(main)

    def test_merges_into_one_block_lose_nothing(self, overlay: OverlayDisk):
        async def main() -> None:
            await asyncio.gather(*(overlay.write(n * 64, bytes([n + 1]) * 64) for n in range(64)))
            data = await overlay.read(0, BLOCK)
            assert data == b"".join(bytes([n + 1]) * 64 for n in range(64))

        run(main)


class TestRefusals:
    """All in words; nothing of it is served as data."""

    @pytest.fixture
    def path(self, base: FileDisk, place: Path) -> Path:
        async def main() -> None:
            with OverlayDisk(base, place / "overlay") as disk:
                await disk.write(5000, b"hello")

        run(main)
        return place / "overlay"

    def refused(self, base: Any, path: Path, text: str, **options: Any) -> None:
        with pytest.raises(ImageError, match=text) as caught:
            OverlayDisk(base, path, **options)
        assert str(caught.value).startswith(f"cannot open overlay '{path}': ")

    @pytest.mark.parametrize("length", [0, 1, 4096, 8192, 12287, 12288, 70_000, -1])
    def test_truncated(self, base: FileDisk, path: Path, length: int):
        os.truncate(path, length if length >= 0 else path.stat().st_size - 1)
        self.refused(base, path, "truncated|does not say so")

    def test_one_bit_flipped(self, base: FileDisk, path: Path):
        """Anywhere in the header or the bitmap."""
        whole = content(path)
        rng = random.Random(3)
        for _ in range(60):
            bit = rng.randrange(2 * 4096 * 8)
            byte = bit // 8 + (4096 if bit >= 4096 * 8 else 0)  # not the journal's head
            damaged = bytearray(whole)
            damaged[byte] ^= 1 << bit % 8
            path.write_bytes(damaged)
            self.refused(base, path, "is damaged|does not say so")
        path.write_bytes(whole)
        OverlayDisk(base, path).close()

    def test_bitmap_punched(self, base: FileDisk, path: Path):
        with path.open("r+b") as file:
            os.pwrite(file.fileno(), bytes(4096), 8192)
        self.refused(base, path, "page 2 is damaged")

    def test_bitmap_of_another(self, base: FileDisk, path: Path, place: Path):
        OverlayDisk(base, place / "other").close()
        page = content(place / "other")[8192:12288]
        with path.open("r+b") as file:
            os.pwrite(file.fileno(), page, 8192)
        self.refused(base, path, "page 2 is another overlay's")

    def test_newer_version(self, base: FileDisk, path: Path):
        page = bytearray(content(path)[:4096])
        page[24] = 9
        sealed = fmt.seal(0, bytes(page[32:48]), bytes(page[: fmt.BODY]))
        with path.open("r+b") as file:
            os.pwrite(file.fileno(), sealed, 0)
        self.refused(base, path, "of version 9, which is newer")

    def test_no_overlay(self, base: FileDisk, image: Path):
        self.refused(base, image, "not an overlay")

    def test_base_missing(self, base: FileDisk, path: Path, image: Path):
        image.unlink()
        self.refused(base, path, "its base '.*base': No such file")

    def test_base_of_another_size(self, path: Path, image: Path):
        os.truncate(image, SIZE - 1)
        with FileDisk(image, read_only=True) as shrunk:
            self.refused(shrunk, path, "had 100000 bytes, and '.*base' has 99999: it has changed")
        with MemoryDisk(SIZE + 1) as other:
            self.refused(other, path, "had 100000 bytes, and 'the base' has 100001")

    def test_base_replaced(self, path: Path, image: Path):
        data = content(image)
        image.unlink()
        image.write_bytes(data)
        with FileDisk(image, read_only=True) as other:
            self.refused(other, path, "its time of change differs")
        with MemoryDisk(SIZE) as memory:
            self.refused(memory, path, "its time of change differs")

    def test_base_changed_below_other_disks(self, path: Path, image: Path):
        os.utime(image, (1, 1))
        with FileDisk(image) as file, LogDisk(file, open(os.devnull, "w")) as log:  # noqa: PTH123
            self.refused(log, path, "its time of change differs")
            log._stream.close()  # type: ignore[attr-defined]

    def test_another_size_asked_for(self, base: FileDisk, path: Path):
        self.refused(base, path, "it is 100000 bytes, and 5 were asked for", size=5)
        with pytest.raises(DiskError, match="an overlay of 0 bytes"):
            OverlayDisk(base, size=0)

    def test_cannot_be_made(self, base: FileDisk, place: Path):
        with pytest.raises(ImageError, match=r"cannot make overlay '.*': No such file"):
            OverlayDisk(base, place / "nowhere" / "overlay")
        with pytest.raises(ImageError, match="No such file or directory"):
            OverlayDisk(base, place / "overlay", read_only=True)

    def test_no_hard_links(self, base: FileDisk, place: Path, monkeypatch: pytest.MonkeyPatch):
        def link(*_: Any) -> None:
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", link)
        OverlayDisk(base, place / "overlay").close()
        OverlayDisk(base, place / "overlay").close()
        assert names(place) == ["base", "overlay"]

    def test_read_only(self, base: FileDisk, path: Path):
        async def main() -> None:
            before = content(path)
            with OverlayDisk(base, path, read_only=True) as disk:
                assert await disk.read(5000, 5) == b"hello"
                await disk.flush()
                for change in (disk.write(0, b"x"), disk.trim(0, 1), disk.fast_zeroes(0, 1)):
                    with pytest.raises(DiskReadOnly):
                        await change
                with pytest.raises(DiskReadOnly):
                    await disk.commit()
            assert content(path) == before

        run(main)

    def test_closed(self, base: FileDisk, path: Path):
        async def main() -> None:
            disk = OverlayDisk(base, path)
            disk.close()
            disk.close()
            for late in (disk.read(0, 1), disk.write(0, b"x"), disk.flush(), disk.commit()):
                with pytest.raises(DiskClosed):
                    await late
            with pytest.raises(DiskClosed):
                disk.try_write(0, b"x")
            with pytest.raises(DiskClosed):
                disk.try_read_into(0, memoryview(bytearray(1)))
            await base.read(0, 1)

        run(main)
