"""FsspecDisk on fsspec's file system in memory, and on one that fails as it is told to."""

from __future__ import annotations

import asyncio
import errno
import random
import sys
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from homebound import IOThread, block_on, run
from homebound.block import DiskClosed, DiskError, DiskReadOnly, Extent, FsspecDisk, ImageError
from homebound.testing import check_disk

if TYPE_CHECKING:
    from collections.abc import Iterator

fsspec = pytest.importorskip("fsspec")
MemoryFileSystem: Any = fsspec.get_filesystem_class("memory")

SIZE = 300_001
BLOCK = 4096
DATA = random.Random(7).randbytes(SIZE)
URL = "faulty://directory/disk.img"
PATH = "/directory/disk.img"


class Faulty(MemoryFileSystem):  # type: ignore[misc]
    """Fetches fail with the next of `faults`, if there is one."""

    protocol = "faulty"
    store: ClassVar[dict[str, Any]] = {}
    faults: ClassVar[list[Any]] = []
    fetched: ClassVar[list[tuple[int, int]]] = []
    marks: ClassVar[dict[str, Any]] = {}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        path = path.replace("faulty://", "memory://")
        return super()._strip_protocol(path)  # type: ignore[no-any-return]

    def cat_file(self, path: str, start: int, end: int, **options: Any) -> bytes:
        self.fetched.append((start, end - start))
        data: bytes = super().cat_file(path, start=start, end=end, **options)
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, Exception):
            raise fault
        return data if fault is None else fault(data)

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        return super().info(path, **options) | self.marks  # type: ignore[no-any-return]


fsspec.register_implementation("faulty", Faulty, clobber=True)


@pytest.fixture(autouse=True)
def files() -> Iterator[Any]:
    Faulty.store.clear()
    Faulty.faults.clear()
    Faulty.fetched.clear()
    Faulty.marks.clear()
    file_system = Faulty()
    file_system.pipe_file(PATH, DATA)
    yield file_system
    Faulty.faults.clear()  # errors keep the frames that they came through
    Faulty.clear_instance_cache()


@pytest.fixture
def disk(files: Any) -> Iterator[FsspecDisk]:
    del files
    with FsspecDisk(URL, block_size=BLOCK, cache_size=32 * BLOCK, read_ahead=8 * BLOCK) as disk:
        yield disk


def test_is_a_disk():
    check_disk(lambda: FsspecDisk(URL, block_size=BLOCK, cache_size=8 * BLOCK))
    check_disk(lambda: FsspecDisk.open(URL))


def test_describes_itself(disk: FsspecDisk):
    assert (disk.size, disk.read_only, disk.preferred_block) == (SIZE, True, BLOCK)
    assert repr(disk) == f"<FsspecDisk '{URL}' (300001 bytes)>"
    assert run(disk.block_status(5, 10)) == [Extent(10)]
    for change in (disk.write(0, b"x"), disk.trim(0, 1), disk.write_zeroes(0, 1)):
        with pytest.raises(DiskReadOnly):
            run(change)
    run(disk.flush())


def test_blocks_are_kept(disk: FsspecDisk):
    buffer = memoryview(bytearray(100))
    assert not disk.try_read_into(5000, buffer)
    assert run(disk.read(5000, 100)) == DATA[5000:5100]
    assert Faulty.fetched == [(BLOCK, BLOCK)]
    assert disk.try_read_into(5050, buffer)
    assert buffer == DATA[5050:5150]
    run(disk.read(5000, 3000))
    assert len(Faulty.fetched) == 1


def test_a_sequential_reader_has_more_fetched(disk: FsspecDisk):
    async def main() -> None:
        for offset in range(0, SIZE - 1000, 1000):
            assert await disk.read(offset, 1000) == DATA[offset : offset + 1000]

    run(main())
    lengths = [length // BLOCK for _, length in Faulty.fetched]
    assert lengths[:5] == [1, 2, 4, 8, 8]
    starts = [start for start, _ in Faulty.fetched]
    assert starts == sorted(set(starts))
    assert sum(length for _, length in Faulty.fetched) == SIZE


def test_several_sequential_readers(disk: FsspecDisk):
    async def main() -> None:
        for offset in range(0, 100_000, 4096):
            for start in (0, 150_000):
                at = start + offset
                assert await disk.read(at, 1000) == DATA[at : at + 1000]

    run(main())
    assert len(Faulty.fetched) < 16


def test_readers_of_one_block_fetch_it_once(disk: FsspecDisk):
    async def main() -> None:
        found = await asyncio.gather(*(disk.read(n, 10) for n in range(100)))
        assert found == [DATA[n : n + 10] for n in range(100)]

    run(main())
    assert len(Faulty.fetched) == 1


def test_cache_has_the_range_fetched(disk: FsspecDisk):
    run(disk.cache(10_000, 30_000))
    fetched = len(Faulty.fetched)
    assert disk.try_read_into(10_000, memoryview(bytearray(30_000)))
    run(disk.cache(10_000, 30_000))
    run(disk.cache(SIZE, 0))
    assert len(Faulty.fetched) == fetched


def test_homes(disk: FsspecDisk):
    with IOThread() as one, IOThread() as two:
        for n, io in enumerate((one, two, one, two)):
            found = block_on(disk.read(n * 50_000, 50_000), io.context)
            assert found == DATA[n * 50_000 : (n + 1) * 50_000]


class TestFaults:
    def test_repeated(self, disk: FsspecDisk):
        Faulty.faults += [OSError(errno.ECONNRESET, "reset"), TimeoutError(), lambda d: d[:100]]
        assert run(disk.read(0, 10)) == DATA[:10]
        assert Faulty.fetched == [(0, BLOCK)] * 4

    def test_given_up(self, files: Any):
        del files
        with FsspecDisk(URL, block_size=BLOCK, retries=1) as disk:
            Faulty.faults += [RuntimeError("at  https://me:secret@host/x?key=secret")] * 2
            with pytest.raises(DiskError) as caught:
                run(disk.read(BLOCK, 10))
            assert caught.value.errno == errno.EIO
            assert str(caught.value) == (
                f"cannot read 4096 bytes at 4096 of '{URL}' (tried 2 times): at https://host/x"
            )
            assert run(disk.read(BLOCK, 10)) == DATA[BLOCK : BLOCK + 10]

    @pytest.mark.parametrize("length", [0, BLOCK - 1, BLOCK + 1])
    def test_wrong_lengths(self, files: Any, length: int):
        del files

        def fault(_: bytes) -> bytes:
            return DATA[:length]

        with FsspecDisk(URL, block_size=BLOCK, retries=0) as disk:
            Faulty.faults.append(fault)
            with pytest.raises(DiskError, match="bytes came for 4096 at 0"):
                run(disk.read(0, 10))

    def test_final(self, disk: FsspecDisk, files: Any):
        files.rm(PATH)
        with pytest.raises(DiskError, match="there is no such file"):
            run(disk.read(0, 10))

    def test_cancelled_between_attempts(self, disk: FsspecDisk):
        Faulty.faults += [OSError(errno.EIO, "broken")] * 6

        async def main() -> None:
            task = asyncio.create_task(disk.read(0, 10))
            while not Faulty.fetched:
                await asyncio.sleep(0.001)
            task.cancel()
            assert isinstance(
                (await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError
            )
            Faulty.faults.clear()
            assert await disk.read(0, 10) == DATA[:10]

        run(main())

    def test_closed_between_attempts(self, disk: FsspecDisk):
        Faulty.faults += [OSError(errno.EIO, "broken")] * 6

        async def main() -> None:
            task = asyncio.create_task(disk.read(0, 10))
            while not Faulty.fetched:
                await asyncio.sleep(0.001)
            disk.close()
            with pytest.raises(DiskClosed):
                await task

        run(main())


class TestChanged:
    def changed(self, disk: FsspecDisk, text: str) -> None:
        for offset in (BLOCK, 0):  # also what was kept
            with pytest.raises(DiskError, match=f"has changed since.*{text}") as caught:
                run(disk.read(offset, 10))
            assert caught.value.errno == errno.ESTALE
        with pytest.raises(DiskError, match="has changed since"):
            disk.try_read_into(0, memoryview(bytearray(10)))

    @pytest.fixture(autouse=True)
    def begin(self, files: Any) -> None:
        del files
        Faulty.marks["ETag"] = "one"

    def test_size(self, disk: FsspecDisk, files: Any):
        run(disk.read(0, 10))
        files.pipe_file(PATH, DATA[:-1])
        self.changed(disk, "size was 300001, is 300000$")

    def test_etag(self, disk: FsspecDisk):
        run(disk.read(0, 10))
        Faulty.marks["ETag"] = "two"
        self.changed(disk, "ETag was one, is two$")

    def test_while_it_is_read(self, disk: FsspecDisk):
        def change(data: bytes) -> bytes:
            Faulty.marks["ETag"] = "two"
            return data

        run(disk.read(0, 10))
        Faulty.faults.append(change)
        self.changed(disk, "ETag was one, is two$")

    def test_time_of_making_where_there_is_nothing_else(self, files: Any):
        Faulty.marks.clear()
        with FsspecDisk(URL, block_size=BLOCK) as disk:
            run(disk.read(0, 10))
            files.pipe_file(PATH, DATA)
            self.changed(disk, "created was")

    def test_emptied(self, disk: FsspecDisk, files: Any):
        run(disk.read(0, 10))
        files.pipe_file(PATH, b"")
        self.changed(disk, "it is empty")


class TestRefused:
    def refused(self, url: str, text: str, number: int) -> None:
        with pytest.raises(ImageError, match=text) as caught:
            FsspecDisk(url)
        assert caught.value.errno == number

    def test_missing(self):
        self.refused("faulty://none", "'faulty://none': there is no such file", errno.ENOENT)

    def test_directory(self):
        self.refused("faulty://directory", "it is a directory", errno.EISDIR)

    def test_empty(self, files: Any):
        files.pipe_file("/empty", b"")
        self.refused("faulty://empty", "it is empty", errno.EINVAL)

    def test_no_size(self):
        Faulty.marks["size"] = None
        self.refused(URL, "its server does not tell its size", errno.EINVAL)

    def test_unknown_protocol(self):
        self.refused("gopher://host/x", "Protocol not known: gopher", errno.EINVAL)

    def test_without_fsspec(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(sys.modules, "fsspec", None)
        text = r"fsspec is not installed \(pip install homebound\[fsspec\]\)"
        self.refused("https://me:secret@host/x?key=y", f"'https://host/x': {text}", errno.ENOTSUP)

    @pytest.mark.parametrize(
        "options", [{"block_size": 1000}, {"block_size": 512}, {"retries": -1}, {"timeout": 0}]
    )
    def test_options(self, options: dict[str, Any]):
        with pytest.raises(ValueError, match="is"):
            FsspecDisk(URL, **options)
