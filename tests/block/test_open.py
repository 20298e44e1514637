"""open_disk: disks by name, and what is refused."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.block import (
    DiskError,
    FileDisk,
    ImageError,
    MemoryDisk,
    OverlayDisk,
    open_disk,
)

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 100_000


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "raw.img"
    path.write_bytes(b"r" * SIZE)
    return path


def refused(spec: Any, text: str, number: int = errno.EINVAL) -> None:
    with pytest.raises(ImageError, match=text) as caught:
        homebound.run(open_disk(spec))
    assert caught.value.errno == number


@pytest.mark.parametrize("read_only", [False, True])
def test_a_raw_image(image: Path, *, read_only: bool):
    async def main() -> None:
        for spec in (image, str(image)):
            with await open_disk(spec, read_only=read_only) as disk:
                assert isinstance(disk, FileDisk)
                assert disk.read_only == read_only
                assert await disk.read(0, 2) == b"rr"

    homebound.run(main())


@pytest.mark.parametrize(("spec", "size"), [("512", 512), ("1k", 1024), ("3MiB", 3 << 20)])
def test_memory(spec: str, size: int):
    async def main() -> None:
        with await open_disk(f"memory:{spec}", read_only=True) as disk:
            assert isinstance(disk, MemoryDisk)
            assert (disk.size, disk.read_only) == (size, True)

    homebound.run(main())


def test_an_overlay_and_one_on_it(image: Path, tmp_path: Path):
    lower, upper = tmp_path / "lower", tmp_path / "upper"

    async def main() -> None:
        with FileDisk(image, read_only=True) as base, OverlayDisk(base, lower) as disk:
            await disk.write(0, b"lower")
        middle = await open_disk(f"overlay:{lower}", read_only=True)
        with middle, OverlayDisk(middle, upper) as disk:
            await disk.write(5, b"upper")
        with await open_disk(f"overlay:{upper}") as top:
            assert isinstance(top, OverlayDisk)
            assert await top.read(0, 11) == b"lowerupperr"
            below = top.base
        with pytest.raises(DiskError):  # it is closed as well
            await below.read(0, 1)

    homebound.run(main())


class TestRefused:
    def test_sizes(self):
        refused("memory:", "'' is not a size; write a number")
        refused("memory:-1", "'-1' is not a size")
        refused("memory:0", "'0' is 0 bytes; a disk has a whole number, at least 1")

    def test_missing(self, tmp_path: Path):
        refused(tmp_path / "none", "No such file or directory", errno.ENOENT)
        refused(f"overlay:{tmp_path}/none", "No such file or directory", errno.ENOENT)

    def test_another_format(self, tmp_path: Path):
        (tmp_path / "q").write_bytes(b"QED\0" + bytes(1000))
        refused(tmp_path / "q", "it is a qed image, which is not read; convert it")

    def test_an_overlay_that_was_not_asked_for(self, image: Path, tmp_path: Path):
        """Or a guest could have any file opened, by writing a header into its raw disk."""
        with FileDisk(image, read_only=True) as base:
            OverlayDisk(base, tmp_path / "o").close()
        refused(tmp_path / "o", f"it is an overlay; open it as overlay:{tmp_path}/o")
        page = bytearray((tmp_path / "o").read_bytes())
        page[60] ^= 1
        (tmp_path / "o").write_bytes(page)
        refused(tmp_path / "o", f"it is an overlay; open it as overlay:{tmp_path}/o")

    def test_no_overlay(self, image: Path, tmp_path: Path):
        refused(f"overlay:{image}", "it is not an overlay")
        with MemoryDisk(SIZE) as base:
            OverlayDisk(base, tmp_path / "o").close()
        refused(f"overlay:{tmp_path}/o", "its base is no file")

    def test_base_missing_or_damaged(self, image: Path, tmp_path: Path):
        with FileDisk(image, read_only=True) as base:
            OverlayDisk(base, tmp_path / "o").close()
        image.rename(tmp_path / "elsewhere")
        refused(f"overlay:{tmp_path}/o", "No such file or directory", errno.ENOENT)
        image.write_bytes(b"r" * SIZE)
        refused(f"overlay:{tmp_path}/o", "its time of change differs")
        page = bytearray((tmp_path / "o").read_bytes())
        page[60] ^= 1
        (tmp_path / "o").write_bytes(page)
        refused(f"overlay:{tmp_path}/o", "page 0 is damaged")

    def test_uris(self, tmp_path: Path):
        with pytest.raises(DiskError, match="No such file"):
            homebound.run(open_disk(f"nbd+unix:///x?socket={tmp_path}/s"))
        refused("nbd:unix:/s", "is QEMU's own form; write nbd\\+unix:///\\?socket=/s")

    def test_a_script_that_is_not_there(self, tmp_path: Path):
        refused(tmp_path / "disk.py", "No such file or directory", errno.ENOENT)


def test_cancelled(image: Path):
    """Opened or not, nothing is left open: the fixtures see to that."""

    async def main() -> None:
        for step in range(6):
            task = asyncio.create_task(open_disk(image))
            for _ in range(step):
                await asyncio.sleep(0)
            task.cancel()
            outcome = (await asyncio.gather(task, return_exceptions=True))[0]
            if isinstance(outcome, FileDisk):
                outcome.close()
            else:
                assert isinstance(outcome, asyncio.CancelledError)

    homebound.run(main())
