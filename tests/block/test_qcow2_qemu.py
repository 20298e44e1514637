"""Qcow2Disk against QEMU's tools: the same bytes, the same map, whatever they have made."""

from __future__ import annotations

import importlib
import json
import random
from typing import TYPE_CHECKING

import pytest

from homebound import run
from homebound.block import ImageError, Qcow2Disk

from .qcow2_images import contents, qemu

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.peers

SIZE = 5_000_192  # 512 * 9766 - no multiple of a cluster
OPTIONS = [
    "cluster_size=512",
    "cluster_size=4k",
    "cluster_size=64k",
    "cluster_size=2M",
    "compat=0.10",
    "compat=0.10,cluster_size=1k",
    "lazy_refcounts=on",
    "refcount_bits=1",
    "extended_l2=on",
    "extended_l2=on,cluster_size=16k",
    "extended_l2=on,cluster_size=2M",
    "preallocation=metadata",
    "preallocation=metadata,extended_l2=on",
    "preallocation=falloc",
    "preallocation=full,cluster_size=8k",
]


def has_zstd() -> bool:
    for name in ("compression.zstd", "backports.zstd"):
        try:
            importlib.import_module(name)
        except ImportError:
            continue
        return True
    return False


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "image.qcow2"


def scribble(image: Path, seed: int, size: int = SIZE, *, compress: bool = False) -> None:
    """Write, zero, discard and compress at random, whole clusters and parts of them."""
    rng = random.Random(seed)
    commands: list[object] = []
    if compress:  # of clusters that have no data yet; QEMU takes no others
        for n in range(size >> 21):
            commands += ["-c", f"write -c -P {100 + n} {n << 21} {2 << 20}"]
    for n in range(40):
        length = rng.choice((512, 4096, 5120, 65536, 200_192, 1 << 20))
        offset = rng.randrange(size // 512) * 512
        length = min(length, size - offset)
        kind = rng.choice(("write", "write", "write -z", "write -zu", "discard"))
        pattern = "" if "z" in kind or kind == "discard" else f"-P {n + 1}"
        commands += ["-c", f"{kind} {pattern} {offset} {length}"]
    qemu("qemu-io", "-f", "qcow2", *commands, image)


def check(image: Path) -> None:
    """All bytes, some ranges, and the map."""
    expected = contents(image)
    with Qcow2Disk(image) as disk:
        assert disk.size == len(expected)
        assert run(disk.read(0, disk.size)) == expected
        check_ranges(disk, expected)
        check_map(disk, expected, json.loads(qemu("qemu-img", "map", "--output=json", image)))


def check_ranges(disk: Qcow2Disk, expected: bytes) -> None:
    rng = random.Random(1)

    async def main() -> None:
        for _ in range(100):
            length = rng.choice((1, 511, 512, 4097, 70_000, 600_001))
            length = min(length, disk.size)
            offset = rng.randrange(disk.size - length + 1)
            found = bytearray(length)
            if not disk.try_read_into(offset, memoryview(found)):
                found = await disk.read(offset, length)
            assert found == expected[offset : offset + length], (offset, length)

    run(main())


def check_map(disk: Qcow2Disk, expected: bytes, extents: list[dict[str, int]]) -> None:
    """What qemu-img map says is zero is said to be, and nothing that is not."""
    zero = bytearray(disk.size)
    at = 0
    for extent in run(disk.block_status(0, disk.size)):
        if extent.zero:
            assert not any(expected[at : at + extent.length]), at
            zero[at : at + extent.length] = b"\1" * extent.length
        assert extent.zero or not extent.hole
        at += extent.length
    assert at == disk.size
    for each in extents:
        start, stop = each["start"], min(each["start"] + each["length"], disk.size)
        if each["zero"]:
            assert zero.count(1, start, stop) == stop - start, each
        elif zero.count(1, start, stop):
            assert each["data"], each  # a hole of the file


@pytest.mark.parametrize("options", OPTIONS)
def test_created_and_written(image: Path, options: str):
    compress = "preallocation" not in options
    qemu("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, image, SIZE)
    check(image)
    scribble(image, 1, compress=compress)
    check(image)
    qemu("qemu-img", "check", "-q", image)


@pytest.mark.parametrize("size", ["512", "64k", "65k", "100G"])
def test_sizes(image: Path, size: str):
    qemu("qemu-img", "create", "-q", "-f", "qcow2", image, size)
    qemu("qemu-io", "-f", "qcow2", "-c", "write -P 9 0 512", image)
    with Qcow2Disk(image) as disk:
        info = json.loads(qemu("qemu-img", "info", "--output=json", image))
        assert disk.size == info["virtual-size"]
        assert run(disk.read(0, 512)) == b"\x09" * 512
        tail = min(512, disk.size - 512)
        assert run(disk.read(disk.size - tail, tail)) == bytes(tail)
        extents = run(disk.block_status(0, disk.size))
        assert sum(extent.length for extent in extents) == disk.size


@pytest.mark.parametrize("kind", ["zlib", "zstd"])
@pytest.mark.parametrize("cluster", ["512", "4k", "64k", "2M"])
def test_compressed(image: Path, kind: str, cluster: str):
    if kind == "zstd" and not has_zstd():
        pytest.skip("no zstd: Python 3.14, or the extra qcow2")
    rng = random.Random(3)
    raw = image.with_name("raw")
    pieces = [rng.randbytes(100_000), bytes(300_000), b"squeezed" * 90_000, rng.randbytes(700)]
    raw.write_bytes(b"".join(pieces * 3))
    options = f"compression_type={kind},cluster_size={cluster}"
    qemu("qemu-img", "convert", "-c", "-O", "qcow2", "-f", "raw", "-o", options, raw, image)
    check(image)
    qemu("qemu-io", "-f", "qcow2", "-c", "write -P 1 1000960 5120", image)
    check(image)


def test_zstd_without_a_decompressor(image: Path):
    if has_zstd():
        pytest.skip("zstd is here")
    qemu("qemu-img", "create", "-q", "-f", "qcow2", "-o", "compression_type=zstd", image, "1M")
    with pytest.raises(ImageError, match=r"zstd, which needs Python 3\.14 or pip install"):
        Qcow2Disk(image)


def test_snapshots_are_ignored(image: Path):
    qemu("qemu-img", "create", "-q", "-f", "qcow2", image, SIZE)
    scribble(image, 2, compress=True)
    before = contents(image)
    qemu("qemu-img", "snapshot", "-c", "one", image)
    scribble(image, 3)
    assert contents(image) != before
    check(image)
    qemu("qemu-img", "snapshot", "-a", "one", image)
    check(image)
    assert contents(image) == before


SIZES = [(SIZE, SIZE), (SIZE, 1_000_448), (1_000_448, SIZE), (SIZE, 512)]


@pytest.mark.parametrize(("below", "above"), SIZES)
@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_backing_files(image: Path, form: str, below: int, above: int):
    """Two images on a base, each of another size, named relative to the one above it."""
    directory = image.parent / "below"
    directory.mkdir()
    base, middle = directory / "base", directory / "middle"
    qemu("qemu-img", "create", "-q", "-f", "qcow2", middle, below)
    scribble(middle, 4, below, compress=True)
    qemu("qemu-img", "convert", "-O", form, middle, base)
    create = ("qemu-img", "create", "-q", "-f", "qcow2")
    between = (below + above) // 1024 * 512
    qemu(*create, "-b", "base", "-F", form, "-o", "cluster_size=4k", middle, between)
    scribble(middle, 5, between)
    qemu(*create, "-b", "below/middle", "-F", "qcow2", "-o", "extended_l2=on", image, above)
    check(image)
    if above > 1 << 21:
        scribble(image, 6, above)
        check(image)
    qemu("qemu-img", "rebase", "-b", "below/base", "-F", form, image)
    check(image)
    qemu("qemu-img", "commit", "-q", image)
    if form == "qcow2":
        check(base)


def test_encrypted(image: Path):
    secret = ("--object", "secret,id=s,data=abc")
    options = "encrypt.format=aes,encrypt.key-secret=s"  # LUKS takes seconds, and steady ones
    qemu("qemu-img", "create", "-q", *secret, "-f", "qcow2", "-o", options, image, "1M")
    with pytest.raises(ImageError, match=r"it is encrypted \(AES\)"):
        Qcow2Disk(image)


def test_external_data_file(image: Path):
    options = f"data_file={image.parent}/data"
    qemu("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, image, "1M")
    with pytest.raises(ImageError, match="its data is in another file"):
        Qcow2Disk(image)


def test_killed_writer_leaves_a_dirty_image(image: Path):
    qemu("qemu-img", "create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", image, "1M")
    commands = ("-c", "write -P 5 0 64k", "-c", "flush", "-c", "sigraise 9")
    with pytest.raises(AssertionError):
        qemu("qemu-io", "-f", "qcow2", *commands, image)
    assert image.read_bytes()[79] == 1
    with Qcow2Disk(image) as disk:
        assert run(disk.read(0, 65537)) == b"\5" * 65536 + b"\0"


def test_qemu_does_not_write_meanwhile(image: Path):
    qemu("qemu-img", "create", "-q", "-f", "qcow2", image, "1M")
    with Qcow2Disk(image), pytest.raises(AssertionError, match='Failed to get "write" lock'):
        qemu("qemu-io", "-f", "qcow2", "-c", "write 0 512", image)
