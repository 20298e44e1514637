"""Qcow2Disk on images made by hand: what it reads, what it refuses, and no way to harm it."""

from __future__ import annotations

import errno
import random
import struct
import tracemalloc
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from homebound import run
from homebound.block import (
    DiskClosed,
    DiskError,
    DiskReadOnly,
    Extent,
    FileDisk,
    ImageError,
    ImageLocked,
    OverlayDisk,
    Qcow2Disk,
    open_disk,
)
from homebound.testing import until

from .qcow2_images import (
    CLUSTER,
    COPIED,
    DATA,
    L1,
    L2,
    SIZE,
    at_compressed,
    deflated,
    header,
    mixed,
    tables,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.qcow2"
    path.write_bytes(mixed()[0])
    return path


def refused(image: Path, text: str, number: int = errno.EINVAL, **options: Any) -> None:
    with pytest.raises(ImageError, match=text) as caught:
        Qcow2Disk(image, **options)
    assert caught.value.errno == number
    assert str(caught.value).startswith(f"cannot open image '{image}': ")


def read_all(image: Path) -> bytearray:
    with Qcow2Disk(image) as disk:
        return run(disk.read(0, disk.size))


class TestReads:
    def test_every_kind_of_cluster(self, image: Path):
        with Qcow2Disk(image) as disk:
            assert (disk.size, disk.read_only, disk.preferred_block) == (SIZE, True, CLUSTER)
            assert disk.paths == [str(image)]
            assert run(disk.read(0, SIZE)) == mixed()[1]
            for offset in range(0, SIZE - 1000, 997):
                assert run(disk.read(offset, 1000)) == mixed()[1][offset : offset + 1000]

    def test_block_status(self, image: Path):
        with Qcow2Disk(image) as disk:
            assert run(disk.block_status(0, SIZE)) == [
                Extent(2 * CLUSTER),
                Extent(CLUSTER, hole=True, zero=True),
                Extent(CLUSTER),
                Extent(CLUSTER, hole=True, zero=True),
                Extent(CLUSTER, zero=True),
                Extent(CLUSTER, hole=True, zero=True),
                Extent(CLUSTER),
                Extent(12 * CLUSTER, hole=True, zero=True),
                Extent(100),
            ]
            assert run(disk.block_status(CLUSTER - 1, 1)) == [Extent(1)]

    def test_attempts_need_what_is_in_memory(self, image: Path):
        with Qcow2Disk(image) as disk:
            buffer = memoryview(bytearray(100))
            at = 3 * CLUSTER + 50
            assert not disk.try_read_into(at, buffer)  # neither tables nor the cluster
            until(lambda: run(disk.read(at, 1)) and disk.try_read_into(at, buffer))
            assert buffer == mixed()[1][at : at + 100]

    def test_no_changes(self, image: Path):
        with Qcow2Disk(image) as disk:
            for change in (
                lambda: run(disk.write(0, b"x")),
                lambda: run(disk.trim(0, 1)),
                lambda: run(disk.write_zeroes(0, 1)),
            ):
                with pytest.raises(DiskReadOnly):
                    change()
            run(disk.flush())
        with pytest.raises(DiskClosed):
            run(disk.read(0, 1))

    def test_version_2(self, image: Path):
        image.write_bytes(header(version=2) + tables({1: DATA}) + b"d" * CLUSTER)
        assert read_all(image) == bytes(CLUSTER) + b"d" * CLUSTER + bytes(SIZE - 2 * CLUSTER)

    def test_file_that_ends_in_a_cluster(self, image: Path):
        image.write_bytes(header() + tables({1: DATA}) + b"d" * 10)
        expected = bytes(CLUSTER) + b"d" * 10 + bytes(SIZE - CLUSTER - 10)
        assert read_all(image) == expected
        with Qcow2Disk(image) as disk:
            assert run(disk.read(CLUSTER + 100, 10)) == bytes(10)
            assert sum(each.length for each in run(disk.block_status(0, SIZE))) == SIZE

    def test_dirty_is_no_obstacle(self, image: Path):
        image.write_bytes(header(incompatible=1, compatible=1) + tables({}))
        assert read_all(image) == bytes(SIZE)

    def test_in_an_overlay(self, image: Path, tmp_path: Path):
        with Qcow2Disk(image) as base, OverlayDisk(base, tmp_path / "overlay") as disk:
            run(disk.write(1, b"new"))
            assert run(disk.read(0, 5)) == b"1new1"
        with pytest.raises(ImageError, match="it is qcow2; make an OverlayDisk"):
            run(open_disk(f"overlay:{tmp_path}/overlay"))


class TestRefused:
    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"magic": b"QFI\xfa"}, "it is no qcow2 image"),
            ({"version": 1}, "qcow2 of version 1; versions 2 and 3"),
            ({"version": 4}, "qcow2 of version 4"),
            ({"cluster_bits": 8}, r"2\*\*8 bytes"),
            ({"cluster_bits": 0xFFFFFFFF}, r"2\*\*4294967295 bytes"),
            ({"header_length": 100}, "its header would have 100 bytes"),
            ({"header_length": 0xFFFFFFF8}, "its header would have"),
            ({"l1_offset": L1 + 512}, "is not at a cluster"),
            ({"l1_offset": 1 << 40}, "its L1 table is not inside the file"),
            ({"l1_offset": (1 << 64) - CLUSTER}, "its L1 table is not inside the file"),
            ({"l1_size": 0}, "its L1 table has 0 entries of 1"),
            ({"size": (1 << 64) - 1}, "is too large"),
            ({"size": 1 << 50}, "is too large"),
            ({"size": 0}, "its disk has no bytes"),
            ({"backing_offset": 1 << 60, "backing_length": 9}, "the name of its backing file"),
            ({"backing_offset": 200, "backing_length": 1024}, "the name of its backing file"),
            ({"incompatible": 1 << 3}, "contradicts itself about compression"),
            ({"incompatible": 1 << 4}, "subclusters in clusters of 4096 bytes"),
        ],
    )
    def test_impossible_headers(self, image: Path, changes: dict[str, Any], text: str):
        image.write_bytes(header(**changes) + tables({}))
        refused(image, text)

    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"encryption": 1}, r"encrypted \(AES\)"),
            ({"encryption": 2}, r"encrypted \(LUKS\)"),
            ({"encryption": 77}, r"encrypted \(method 77\)"),
            ({"incompatible": 1 << 2}, "its data is in another file"),
            ({"incompatible": 1 << 63 | 1 << 5}, "not supported: 5, 63"),
        ],
    )
    def test_unsupported(self, image: Path, changes: dict[str, Any], text: str):
        image.write_bytes(header(**changes) + tables({}))
        refused(image, text, errno.ENOTSUP)

    def test_unknown_features_are_named(self, image: Path):
        start = bytearray(header(incompatible=1 << 7))
        names = struct.pack(">BB46s", 0, 7, b"long names") + struct.pack(">BB46s", 1, 7, b"no")
        start[104 : 112 + len(names)] = struct.pack(">II", 0x6803F857, len(names)) + names
        image.write_bytes(start + tables({}))
        refused(image, r"not supported: 7 \(long names\)", errno.ENOTSUP)

    def test_unknown_compression(self, image: Path):
        start = bytearray(header(incompatible=1 << 3, header_length=112))
        start[104] = 9
        image.write_bytes(start + tables({}))
        refused(image, "its compression, type 9, is not supported", errno.ENOTSUP)

    def test_corrupt(self, image: Path):
        image.write_bytes(header(incompatible=2) + tables({}))
        refused(image, "marked as corrupt; qemu-img check -r all", errno.EIO)

    def test_extension_longer_than_the_header(self, image: Path):
        start = bytearray(header())
        start[104:112] = struct.pack(">II", 12345, 0xFFFFFFFF)
        image.write_bytes(start + tables({}))
        refused(image, "an extension of its header is longer than the room")

    @pytest.mark.parametrize("length", [1, 8, 71, 72, 103, CLUSTER, CLUSTER + 7])
    def test_truncated(self, image: Path, length: int):
        image.write_bytes(mixed()[0][:length])
        with pytest.raises(ImageError, match=r"truncated|damaged|no qcow2 image"):
            Qcow2Disk(image)

    def test_writers(self, image: Path):
        with FileDisk(image), pytest.raises(ImageLocked, match="has it open for writing"):
            Qcow2Disk(image)
        with (
            Qcow2Disk(image),
            Qcow2Disk(image),
            pytest.raises(ImageLocked, match="denies it to others"),
        ):
            FileDisk(image)
        with FileDisk(image), Qcow2Disk(image, lock=False):
            pass

    def test_a_long_name_of_a_format(self, image: Path):
        """The message has its beginning: the image may hold anything there."""
        image.with_name("base").write_bytes(bytes(512))
        image.write_bytes(header("base", "z" * 900) + tables({}))
        with pytest.raises(ImageError, match=f"is a '{'z' * 32}' image; raw and qcow2 can"):
            Qcow2Disk(image)


class TestOpenDisk:
    @pytest.mark.parametrize("read_only", [False, True])
    def test_by_its_first_bytes(self, image: Path, *, read_only: bool):
        before = image.read_bytes()

        async def main() -> None:
            with await open_disk(image, read_only=read_only) as disk:
                assert isinstance(disk, Qcow2Disk)
                assert disk.read_only
                assert await disk.read(0, 2) == b"11"
                with pytest.raises(DiskReadOnly):
                    await disk.write(0, b"22")

        run(main())
        assert image.read_bytes() == before

    def test_no_backing_file(self, image: Path):
        image.write_bytes(header("/etc/passwd") + tables({}))
        with pytest.raises(ImageError, match="'/etc/passwd', which is followed only if"):
            run(open_disk(image, read_only=True))


class TestBacking:
    def below(self, image: Path, data: bytes) -> None:
        (image.parent / "base").write_bytes(data)

    @pytest.mark.parametrize("size", [1, CLUSTER + 100, SIZE, SIZE + 5000])
    def test_raw_of_any_size(self, image: Path, size: int):
        self.below(image, b"b" * size)
        image.write_bytes(header("base") + tables({0: DATA, 2: 1}) + b"d" * CLUSTER)
        expected = bytearray(SIZE)
        expected[: min(size, SIZE)] = b"b" * min(size, SIZE)
        expected[:CLUSTER] = b"d" * CLUSTER
        expected[2 * CLUSTER : 3 * CLUSTER] = bytes(CLUSTER)
        assert read_all(image) == expected

    def test_relative_to_the_image(self, image: Path, monkeypatch: pytest.MonkeyPatch):
        self.below(image, b"b" * SIZE)
        (image.parent / "elsewhere").mkdir()
        image.write_bytes(header("file:base") + tables({}))
        monkeypatch.chdir(image.parent / "elsewhere")
        with Qcow2Disk("../image.qcow2") as disk:
            assert run(disk.read(0, 1)) == b"b"
            assert disk.paths == ["../image.qcow2", "../base"]

    def test_format_is_not_guessed(self, image: Path):
        self.below(image, b"b" * SIZE)
        image.write_bytes(header("base", None) + tables({}))
        refused(image, "names no format for its backing file")
        image.write_bytes(header("base", "vmdk") + tables({}))
        refused(image, "is a 'vmdk' image; raw and qcow2 can be read", errno.ENOTSUP)

    def test_raw_is_taken_as_such(self, image: Path):
        self.below(image, mixed()[0])
        image.write_bytes(header("base") + tables({}))
        assert read_all(image)[:4] == b"QFI\xfb"

    @pytest.mark.parametrize("name", ["nbd://localhost/x", "json:{}", "ssh:x"])
    def test_other_protocols(self, image: Path, name: str):
        image.write_bytes(header(name) + tables({}))
        refused(image, "is no local file", errno.ENOTSUP)

    def test_missing(self, image: Path):
        image.write_bytes(header("base") + tables({}))
        with pytest.raises(ImageError, match="base': No such file or directory"):
            Qcow2Disk(image)

    def test_not_followed(self, image: Path):
        self.below(image, b"b" * SIZE)
        image.write_bytes(header("base") + tables({}))
        refused(image, "it names a backing file", backing=False)

    def test_loops(self, image: Path):
        image.write_bytes(header(image.name, "qcow2") + tables({}))
        refused(image, "its own backing file", errno.ELOOP)
        image.write_bytes(header("base", "qcow2") + tables({}))
        self.below(image, header("./image.qcow2", "qcow2") + tables({}))
        with pytest.raises(ImageError, match="its own backing file"):
            Qcow2Disk(image)

    def test_long_chains(self, image: Path):
        for n in range(70):
            below = (f"{n - 1}", "qcow2") if n else (None, None)
            path = image.parent / str(n)
            path.write_bytes(header(*below) + tables({n % 20: DATA}) + bytes([n]) * CLUSTER)
        assert len(read_all(image.parent / "63")) == SIZE
        with pytest.raises(ImageError, match="a chain of more than 64"):
            Qcow2Disk(image.parent / "64")


class TestDamage:
    """Found when it is met: the read fails with EIO, the others go on."""

    def damaged(self, image: Path, entries: dict[int, int], text: str, data: bytes = b"") -> None:
        image.write_bytes(header() + tables({2: DATA} | entries) + b"d" * CLUSTER + data)
        with Qcow2Disk(image) as disk:
            with pytest.raises(DiskError, match=f"is damaged: .*{text}") as caught:
                run(disk.read(0, SIZE))
            assert caught.value.errno == errno.EIO
            assert run(disk.read(2 * CLUSTER, CLUSTER)) == b"d" * CLUSTER

    def test_offsets(self, image: Path):
        self.damaged(image, {0: DATA + 512}, f"a cluster would be at {DATA + 512}")
        self.damaged(image, {0: 1 << 55}, "behind the end of the file")
        self.damaged(image, {0: DATA + CLUSTER}, "behind the end of the file")

    def test_compressed(self, image: Path):
        small = deflated(b"c" * CLUSTER)
        at = DATA + CLUSTER
        gone = "a compressed cluster would be at"
        cannot = "a compressed cluster cannot be decompressed"
        self.damaged(image, {0: at_compressed(1 << 40, 100)}, gone)
        self.damaged(image, {0: at_compressed(at, 100)}, cannot, bytes(100))
        self.damaged(image, {0: at_compressed(at, len(small))}, cannot, small[:-3])
        short = deflated(b"c" * (CLUSTER - 1))
        self.damaged(image, {0: at_compressed(at, len(short))}, cannot, short)

    def test_what_follows_a_compressed_cluster(self, image: Path):
        """More output than a cluster, or more input than is used, is left alone."""
        small = deflated(b"c" * CLUSTER * 50)
        entries = {0: at_compressed(DATA, len(small) + 200)}
        image.write_bytes(header() + tables(entries) + small + b"?" * 200)
        assert read_all(image)[:CLUSTER] == b"c" * CLUSTER

    @pytest.mark.parametrize("at", [L2 + 512, 1 << 50, DATA, 0x00FF_FFFF_FFFF_F000])
    def test_l2_tables(self, image: Path, at: int):
        data = bytearray(header() + tables({}))
        data[L1 : L1 + 8] = struct.pack(">Q", at | COPIED)
        image.write_bytes(data)
        with Qcow2Disk(image) as disk, pytest.raises(DiskError, match="an L2 table would be at"):
            run(disk.read(0, 1))

    def test_zero_clusters_in_version_2(self, image: Path):
        image.write_bytes(header(version=2) + tables({0: 1}))
        with Qcow2Disk(image) as disk, pytest.raises(DiskError, match="which version 2 does not"):
            run(disk.read(0, 1))

    def test_file_that_shrinks(self, image: Path):
        with Qcow2Disk(image, lock=False) as disk:
            image.write_bytes(b"")
            with pytest.raises(DiskError, match="has become shorter"):
                run(disk.read(0, SIZE))

    def test_tables_without_end(self, image: Path):
        """Each of many L1 entries names one L2 table: more extents than anything should hold."""
        entries = CLUSTER // 8
        l2 = struct.pack(f">{entries}Q", *(DATA if n % 2 else 1 for n in range(entries)))
        l1_size = (32 << 20) // 8
        start = header(size=l1_size * entries * CLUSTER, l1_size=l1_size, l1_offset=DATA + CLUSTER)
        l1 = struct.pack(">Q", L2) * l1_size
        image.write_bytes(start + bytes(CLUSTER) + l2 + b"d" * CLUSTER + l1)
        with Qcow2Disk(image) as disk:
            calls = disk.blocking
            calls.cache(0, 1 << 30)
            assert sum(each.length for each in calls.block_status(0, disk.size)) == disk.size
            rng = random.Random(1)
            tracemalloc.start()
            try:
                for _ in range(3000):
                    offset = rng.randrange(disk.size // CLUSTER // 2) * 2 * CLUSTER
                    data = bytearray(CLUSTER + 1)
                    calls.read_into(offset, memoryview(data))
                    assert data == bytes(CLUSTER) + b"d"
                assert tracemalloc.get_traced_memory()[1] < 16 << 20
            finally:
                tracemalloc.stop()


def mutated(rng: random.Random) -> bytes:
    """A good image with a few of its bytes or numbers replaced, in a place that matters."""
    data = bytearray(mixed()[0])
    for _ in range(rng.randint(1, 4)):
        start, stop = rng.choice(((0, 120), (L1, L1 + 16), (L2, L2 + 30 * 8), (DATA, len(data))))
        at = rng.randrange(start, stop)
        match rng.randrange(4):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at : at + 1] = rng.randbytes(1)
            case 2:
                at &= ~7
                data[at : at + 8] = struct.pack(">Q", rng.getrandbits(rng.randint(1, 64)))
            case _:
                at &= ~7
                sector = rng.randrange(len(data) // 512 + 9) * 512
                data[at : at + 8] = struct.pack(">Q", sector | rng.choice((0, 1, 1 << 62, COPIED)))
    if rng.random() < 0.1:
        del data[rng.randrange(len(data)) :]
    return bytes(data)


@pytest.mark.parametrize("seed", range(8))
def test_mutated_images_raise_oserrors_only(image: Path, seed: int):
    rng = random.Random(seed)
    opened = 0
    for _ in range(150):
        image.write_bytes(mutated(rng))
        try:
            disk = Qcow2Disk(image, backing=False)
        except ImageError:
            continue
        opened += 1
        with disk:
            length = min(disk.size, 2 << 20)
            for offset in (0, disk.size - length, rng.randrange(disk.size - length + 1)):
                use(disk, offset, length)
    assert opened > 20


def use(disk: Qcow2Disk, offset: int, length: int) -> None:
    whole, part = memoryview(bytearray(length)), memoryview(bytearray(min(length, CLUSTER)))
    for call in (
        partial(disk.try_read_into, offset, part),
        partial(disk.blocking.read_into, offset, whole),
        partial(disk.blocking.block_status, offset, length),
        partial(disk.blocking.cache, offset, length),
        partial(disk.try_read_into, offset, part),
    ):
        try:
            call()
        except OSError as error:
            assert error.errno == errno.EIO, error  # noqa: PT017
