"""Other programs' clients on each kind of disk, served in the loop and in one and two I/O threads.

Each checks data that it or another program wrote against what it reads.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.nbd import Export

from .peers import PIECE, SIZE, disk_of, mounted, need, noise, peer, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from homebound.block import Disk

    Matter = Callable[[str, Disk], Coroutine[Any, Any, None]]

pytestmark = pytest.mark.peers

PLACES = [  # disks, and numbers of I/O threads
    ("tmpfs", 0),
    ("memory", 1),
    ("memory", 2),
    ("file", 1),
    ("file", 2),
    ("overlay", 1),
    ("overlay", 2),
]


@pytest.fixture(params=PLACES, ids=lambda place: f"{place[0]}-{place[1]}")
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Matter], None]:
    """Run a test's coroutine with the URI of a disk and the disk."""
    kind, threads = request.param

    def run(matter: Matter) -> None:
        async def main() -> None:
            with disk_of(kind) as disk:
                async with serving(disk, tmp_path, threads) as uri:
                    await matter(uri, disk)

        homebound.run(main())

    return run


def test_qemu_io_does_everything(served: Callable[[Matter], None]):
    script = [
        "write -P 1 0 1M",
        "write -P 2 -f 512k 4k",
        "read -P 1 0 512k",
        "read -P 2 512k 4k",
        "write -z 64k 64k",
        "write -z -u 256k 64k",
        "read -P 0 64k 64k",
        "read -P 0 256k 64k",
        "aio_write -P 3 2M 3M",
        "aio_write -P 4 8M 64k",
        "aio_flush",
        "read -P 3 2M 3M",
        "discard 2M 1M",
        "flush",
        "write -P 5 32767k 1k",
        "read -P 5 32767k 1k",
        "write -P 6 1 1",
        "read -P 6 1 1",
    ]

    async def main(uri: str, _: Disk) -> None:
        options = [option for line in script for option in ("-c", line)]
        output = await peer("qemu-io", "-f", "raw", *options, uri)
        assert "failed" not in output.lower()

    served(main)


def test_qemu_img_copies_there_and_back(served: Callable[[Matter], None], tmp_path: Path):
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(noise(SIZE))

    async def main(uri: str, _: Disk) -> None:
        raw = ("-f", "raw", "-O", "raw")
        await peer("qemu-img", "convert", "-n", "-W", "-m", "8", *raw, source, uri)
        compared = await peer("qemu-img", "compare", "-f", "raw", "-F", "raw", source, uri)
        assert "identical" in compared
        await peer("qemu-img", "convert", "-m", "8", *raw, uri, back)

    served(main)
    assert back.read_bytes() == source.read_bytes()


def test_maps_show_the_holes(served: Callable[[Matter], None]):
    """qemu-img map, and nbdinfo's map and its totals."""
    pieces = SIZE // PIECE
    content = noise(SIZE)
    data = [n % 3 != 0 for n in range(pieces)]
    runs = [(key, len(list(group)) * PIECE) for key, group in itertools.groupby(data)]
    holes = data.count(False) * PIECE

    async def main(uri: str, disk: Disk) -> None:
        for n in range(pieces):
            if data[n]:
                await disk.write(n * PIECE, content[n * PIECE : (n + 1) * PIECE])
        await disk.flush()
        extents = json.loads(await peer("qemu-img", "map", "--output=json", "-f", "raw", uri))
        assert [(each["data"], each["length"]) for each in extents] == runs
        assert [each["zero"] for each in extents] == [not each["data"] for each in extents]
        extents = json.loads(await peer("nbdinfo", "--map", "--json", uri))
        assert [(each["type"] == 0, each["length"]) for each in extents] == runs
        totals = json.loads(await peer("nbdinfo", "--map", "--totals", "--json", uri))
        assert [(each["type"], each["size"]) for each in totals] == [(0, SIZE - holes), (3, holes)]
        assert totals[1]["description"] == "hole,zero"

    served(main)


@pytest.mark.parametrize("connections", ["1", "4"])
def test_nbdcopy_copies_there_and_back(
    served: Callable[[Matter], None], tmp_path: Path, connections: str
):
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(noise(SIZE))

    async def main(uri: str, _: Disk) -> None:
        await peer("nbdcopy", "--flush", "-C", connections, source, uri)
        await peer("nbdcopy", "-C", connections, uri, back)

    served(main)
    assert back.read_bytes() == source.read_bytes()


def test_fio_finds_what_it_wrote(served: Callable[[Matter], None]):
    options = [
        "--name=check",
        "--verify_state_save=0",  # to the current directory
        "--ioengine=nbd",
        "--rw=randwrite",
        "--bsrange=512-128k",
        "--bs_unaligned",
        "--iodepth=32",
        "--size=8M",
        "--offset_increment=8M",
        "--numjobs=4",
        "--thread",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--fsync=100",
        "--group_reporting",
    ]

    async def main(uri: str, _: Disk) -> None:
        if "nbd" not in await peer("fio", "--enghelp"):
            pytest.skip("this fio has no engine for NBD")
        assert "err= 0" in await peer("fio", *options, f"--uri={uri}")

    served(main)


def test_a_file_system_by_nbdfuse(served: Callable[[Matter], None], tmp_path: Path):
    need("mkfs.ext4", "e2fsck", "debugfs")
    files, back = tmp_path / "files", tmp_path / "back"
    files.mkdir()
    (files / "noise").write_bytes(noise(SIZE // 4))
    for n in range(100):
        (files / f"small-{n}").write_text("x" * n * 50)

    async def main(uri: str, disk: Disk) -> None:
        async with mounted(uri, tmp_path / "first") as image:
            await peer("mkfs.ext4", "-q", "-F", "-d", files, image)
        async with mounted(uri, tmp_path / "second") as image:
            await peer("e2fsck", "-f", "-n", image)
            await peer("debugfs", "-R", f"dump noise {back}", image)
        assert (await disk.read(1024 + 56, 2)) == b"\x53\xef"  # the magic number of ext4

    served(main)
    assert back.read_bytes() == noise(SIZE // 4)


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("kind", ["memory", "file", "overlay"])
def test_nbdinfo_asked_for_each_ability(kind: str, tmp_path: Path, *, read_only: bool):
    async def main() -> None:
        with disk_of(kind) as disk:
            writable = not read_only
            expected = {
                **dict.fromkeys(("cache", "connect", "df", "read", "structured-reply"), True),
                **dict.fromkeys(("write", "zero"), writable),
                "fast-zero": writable and disk.can_fast_zero,
                "flush": disk.can_flush,
                "fua": disk.can_fua,
                "multi-conn": disk.shared_cache,
                "trim": writable and disk.can_trim,
            }
            states = {"read-only": read_only, "rotational": disk.rotational, "tls": False}
            async with serving(Export(disk, read_only=read_only), tmp_path) as uri:
                asked = [("--can", *item) for item in expected.items()]
                asked += [("--is", *item) for item in states.items()]
                output = await asyncio.gather(
                    *(peer("nbdinfo", how, what, uri, fails=not yes) for how, what, yes in asked)
                )
                assert not any(output)  # it says "no" by its status alone

    homebound.run(main())
