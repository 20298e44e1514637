"""Qcow2Disk against a model: tables at random, subclusters, and frames of zstd made to harm."""

from __future__ import annotations

import errno
import importlib
import random
import struct
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homebound import run
from homebound.block import DiskError, Qcow2Disk

from .qcow2_images import (
    CLUSTER,
    COPIED,
    DATA,
    at_compressed,
    deflated,
    header,
    tables,
)

if TYPE_CHECKING:
    from pathlib import Path

BASE = random.Random(5).randbytes(37 * CLUSTER + 11)  # the backing file
SIZE = 45 * CLUSTER + 77
BODIES = [bytes([n]) * CLUSTER for n in range(1, 6)]
REPEATED = (b"small" * CLUSTER)[:CLUSTER]
SMALL = deflated(REPEATED)
SMALL_AT = DATA + len(BODIES) * CLUSTER + 13

kinds = st.lists(
    st.one_of(st.sampled_from(["backing", "zero", "kept", "small"]), st.integers(0, 4)),
    min_size=46,
    max_size=46,
)
ranges = st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)), max_size=10)


def entry_of(kind: str | int) -> int:
    if isinstance(kind, int):
        return DATA + kind * CLUSTER | COPIED
    return {
        "backing": 0,
        "zero": 1,
        "kept": 1 | DATA,
        "small": at_compressed(SMALL_AT, len(SMALL)),
    }[kind]


def expected_of(chosen: list[str | int]) -> bytes:
    base = BASE + bytes(SIZE - len(BASE))
    found = bytearray()
    for n, kind in enumerate(chosen):
        if isinstance(kind, int):
            found += BODIES[kind]
        elif kind == "small":
            found += REPEATED
        elif kind == "backing":
            found += base[n * CLUSTER : (n + 1) * CLUSTER]
        else:
            found += bytes(CLUSTER)
    return bytes(found[:SIZE])


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    (path / "base").write_bytes(BASE)
    return path


@given(kinds, ranges)
@settings(max_examples=60)
def test_tables_at_random(directory: Path, chosen: list[str | int], asked: list[tuple[int, int]]):
    entries = tables({n: entry_of(kind) for n, kind in enumerate(chosen)})
    data = b"".join(BODIES) + bytes(13) + SMALL
    (directory / "image").write_bytes(header("base", size=SIZE) + entries + data)
    expected = expected_of(chosen)

    async def main() -> None:
        with Qcow2Disk(directory / "image") as disk:
            for one, other in [(0, SIZE), *asked]:
                start, stop = min(one, other), max(one, other)
                buffer = bytearray(stop - start)
                if not disk.try_read_into(start, memoryview(buffer)):
                    buffer = await disk.read(start, stop - start)
                assert buffer == expected[start:stop]
                await check_status(disk, chosen, start, stop)

    run(main())


async def check_status(disk: Qcow2Disk, chosen: list[str | int], start: int, stop: int) -> None:
    """Every byte is what its cluster's kind says, and neighbours differ."""
    extents = await disk.block_status(start, stop - start)
    assert sum(extent.length for extent in extents) == stop - start
    marks = [(extent.hole, extent.zero) for extent in extents]
    assert all(one != other for one, other in pairwise(marks))
    at = start
    for extent in extents:
        for n in range(at // CLUSTER, -(-(at + extent.length) // CLUSTER)):
            first, last = max(at, n * CLUSTER), min(at + extent.length, (n + 1) * CLUSTER)
            assert (extent.hole, extent.zero) == status_of(chosen[n], first), (n, first)
            assert status_of(chosen[n], first) == status_of(chosen[n], last - 1)
        at += extent.length


def status_of(kind: str | int, offset: int) -> tuple[bool, bool]:
    if kind == "backing":
        return (offset >= len(BASE),) * 2
    return kind == "zero", kind in ("zero", "kept")


# Subclusters.

BITS = 14
BIG = 1 << BITS
SUB = BIG // 32


def extended(path: Path, entries: list[tuple[int, int]], body: bytes) -> None:
    """An image with entries of 128 bits; its data begins at cluster 3."""
    start = header(
        "base", incompatible=1 << 4, cluster_bits=BITS, l1_offset=BIG, size=len(entries) * BIG
    )
    numbers = [number for pair in entries for number in pair]
    l2 = struct.pack(f">{len(numbers)}Q", *numbers)
    parts = [start, struct.pack(">Q", 2 * BIG), l2]
    path.write_bytes(b"".join(part.ljust(BIG, b"\0") for part in parts) + body)


@pytest.mark.parametrize("seed", range(10))
def test_subclusters(directory: Path, seed: int):
    rng = random.Random(seed)
    body = rng.randbytes(3 * BIG)
    expected = bytearray(BASE.ljust(10 * BIG, b"\0"))
    entries = []
    for n in range(10):
        place = rng.randrange(3)
        data = rng.choice((0, 0xFFFFFFFF, rng.getrandbits(32), 0xFFFF0000))
        zero = rng.choice((0, 0xFFFFFFFF, rng.getrandbits(32))) & ~data
        entries.append(((3 + place) * BIG | COPIED, zero << 32 | data))
        for sub in range(32):
            at = n * BIG + sub * SUB
            if data >> sub & 1:
                start = place * BIG + sub * SUB
                expected[at : at + SUB] = body[start : start + SUB]
            elif zero >> sub & 1:
                expected[at : at + SUB] = bytes(SUB)
    extended(directory / "image", entries, body)
    with Qcow2Disk(directory / "image") as disk:
        assert run(disk.read(0, disk.size)) == expected
        for _ in range(50):
            length = rng.choice((1, SUB, SUB + 1, BIG, 3 * BIG))
            offset = rng.randrange(disk.size - length)
            assert run(disk.read(offset, length)) == expected[offset : offset + length]
        at = 0
        for extent in run(disk.block_status(0, disk.size)):
            assert not extent.zero or not any(expected[at : at + extent.length])
            at += extent.length
        assert at == disk.size


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ((3 * BIG, 1 << 32 | 1), "both data and zeroes"),
        ((0, 1), "has data and no place"),
        ((3 * BIG + 512, 1), f"a cluster would be at {3 * BIG + 512}"),
        ((9 * BIG, 1), "behind the end of the file"),
    ],
)
def test_damaged_subclusters(directory: Path, entry: tuple[int, int], text: str):
    extended(directory / "image", [(3 * BIG, 1), entry], bytes(BIG))
    with Qcow2Disk(directory / "image") as disk:
        assert run(disk.read(0, BIG)) == bytes(SUB) + BASE[SUB:BIG]
        with pytest.raises(DiskError, match=text) as caught:
            run(disk.read(BIG, BIG))
        assert caught.value.errno == errno.EIO


# zstd.


def zstd() -> Any:
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    pytest.skip("no zstd: Python 3.14, or the extra qcow2")


def with_frames(path: Path, frames: bytes) -> None:
    start = bytearray(header(incompatible=1 << 3, header_length=112))
    start[104] = 1
    entries = tables({0: at_compressed(DATA, len(frames)), 1: DATA})
    path.write_bytes(start + entries + frames.ljust(CLUSTER, b"?"))


class TestZstd:
    @pytest.fixture
    def image(self, directory: Path) -> Path:
        return directory / "image"

    def reads(self, image: Path, frames: bytes, expected: bytes | None) -> None:
        with_frames(image, frames)
        with Qcow2Disk(image) as disk:
            if expected is None:
                with pytest.raises(DiskError, match="cluster cannot be decompressed"):
                    run(disk.read(0, CLUSTER))
            else:
                assert run(disk.read(0, CLUSTER)) == expected
            assert len(run(disk.read(CLUSTER, 10))) == 10

    def test_one_frame_and_several(self, image: Path):
        pack = zstd().compress
        self.reads(image, pack(b"z" * CLUSTER), b"z" * CLUSTER)
        halves = pack(b"a" * (CLUSTER // 2)) + pack(b"b" * (CLUSTER // 2))
        self.reads(image, halves, b"a" * (CLUSTER // 2) + b"b" * (CLUSTER // 2))

    def test_more_than_a_cluster(self, image: Path):
        self.reads(image, zstd().compress(bytes(1 << 26)), bytes(CLUSTER))

    def test_less_than_a_cluster(self, image: Path):
        self.reads(image, zstd().compress(bytes(CLUSTER - 1)), None)

    def test_garbage(self, image: Path):
        zstd()
        self.reads(image, b"no frame" * 10, None)

    def test_empty_frames(self, image: Path):
        self.reads(image, zstd().compress(b"") * 100, None)

    @pytest.mark.parametrize(("bits", "expected"), [(21, REPEATED), (27, None)])
    def test_windows(self, image: Path, bits: int, expected: bytes | None):
        module = zstd()
        packer = module.ZstdCompressor(options={module.CompressionParameter.window_log: bits})
        # Flushed in the middle, so the frame does not tell its size and has so large a window.
        frame = packer.compress(REPEATED[:2000], packer.FLUSH_BLOCK)
        self.reads(image, frame + packer.compress(REPEATED[2000:], packer.FLUSH_FRAME), expected)

    def test_mutated(self, image: Path):
        rng = random.Random(2)
        frame = zstd().compress(b"".join(rng.choice(BODIES)[:8] for _ in range(CLUSTER // 8)))
        for _ in range(300):
            broken = bytearray(frame)
            for _ in range(rng.randint(1, 3)):
                broken[rng.randrange(len(broken))] = rng.randrange(256)
            with_frames(image, bytes(broken))
            with Qcow2Disk(image) as disk:
                try:
                    disk.blocking.read_into(0, memoryview(bytearray(CLUSTER)))
                except DiskError as error:
                    assert error.errno == errno.EIO  # noqa: PT017
