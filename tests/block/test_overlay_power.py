"""An overlay whose machine loses power: what was not synced is there or not, sector by sector.

Every write to the file is noted. At each write and sync, files are made that a power cut could
leave: what was synced, with any of the sectors written since. Each must open, and hold for every
block the last stable write to it, or a later one.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.block import ImageError, MemoryDisk, OverlayDisk
from homebound.block._overlay_file import OverlayFile
from homebound.block._overlay_format import pack_journal

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.exhaustive

BLOCK = 4096
BLOCKS = 40
SIZE = BLOCKS * BLOCK
SECTOR = 512  # of header, journal and bitmap; data is promised for devices with sectors of 4096
CUTS = 2  # files that are made at each step
CHANCES = (0.0, 0.5, 0.9, 1.0)  # of a sector to be there


class Power:
    """The file as it is on stable storage, and what was written to it since."""

    def __init__(self, disk: OverlayDisk, path: Path, rng: random.Random) -> None:
        assert disk._file is not None
        self.data_offset = disk._data_offset
        self.fd = disk._file._raw.fd
        self.durable = bytearray(path.read_bytes())
        self.pending: list[tuple[int, bytes]] = []  # sectors
        self.rng = rng
        self.cuts: list[tuple[bytes, list[int], list[int]]] = []
        self.begun = [0] * BLOCKS  # stamps
        self.stable = [0] * BLOCKS

    def wrote(self, offset: int, data: bytes) -> None:
        size = BLOCK if offset >= self.data_offset else SECTOR
        for start in range(0, len(data), size):
            self.pending.append((offset + start, data[start : start + size]))
        self.cut()

    def synced(self) -> None:
        self.cut()
        self.apply(self.durable, self.pending)
        self.pending = []
        self.cut()

    def apply(self, image: bytearray, sectors: list[tuple[int, bytes]]) -> None:
        for offset, data in sectors:
            image[offset : offset + len(data)] = data

    def cut(self) -> None:
        for _ in range(CUTS):
            of_data, of_metadata = self.rng.choice(CHANCES), self.rng.choice(CHANCES)
            kept = [
                each
                for each in self.pending
                if self.rng.random() < (of_data if each[0] >= self.data_offset else of_metadata)
            ]
            image = bytearray(self.durable)
            self.apply(image, kept)
            self.cuts.append((bytes(image), self.stable.copy(), self.begun.copy()))


@pytest.fixture
def power_of(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Notes what is written to one overlay's file from now on."""

    def watch(disk: OverlayDisk, path: Path, rng: random.Random) -> Power:
        power = Power(disk, path, rng)
        pwritev, pwrite, fdatasync = os.pwritev, os.pwrite, os.fdatasync

        def noted_pwritev(fd: int, buffers: Any, offset: int, flags: int = 0) -> int:
            done = pwritev(fd, buffers, offset)
            if fd == power.fd:
                power.wrote(offset, b"".join(map(bytes, buffers))[:done])
                if flags == getattr(os, "RWF_DSYNC", -1):
                    power.synced()
            return done

        def noted_pwrite(fd: int, data: Any, offset: int) -> int:
            done = pwrite(fd, data, offset)
            if fd == power.fd:
                power.wrote(offset, bytes(data)[:done])
            return done

        def noted_fdatasync(fd: int) -> None:
            fdatasync(fd)
            if fd == power.fd:
                power.synced()

        monkeypatch.setattr(os, "pwritev", noted_pwritev)
        monkeypatch.setattr(os, "pwrite", noted_pwrite)
        monkeypatch.setattr(os, "fdatasync", noted_fdatasync)
        monkeypatch.setattr("homebound.block._rawfile.fallocate", lambda *_: False)
        return power

    return watch


def content(stamp: int) -> bytes:
    """What the write with this stamp puts into a block: 0 is the base's; even ones are zeroes."""
    if stamp and stamp % 2 == 0:
        return bytes(BLOCK)
    return bytes([stamp or 255]) * BLOCK


async def use(disk: OverlayDisk, power: Power) -> None:
    """One request after the other, so that it is known what may be there."""
    rng = power.rng
    for stamp in range(1, 61):
        first = rng.randrange(BLOCKS)
        blocks = range(first, min(BLOCKS, first + rng.randint(1, 3)))
        offset, length = first * BLOCK, len(blocks) * BLOCK
        fua = rng.random() < 0.3
        for block in blocks:
            power.begun[block] = stamp
        if stamp % 2:
            await disk.write(offset, content(stamp) * len(blocks), fua=fua)
        else:
            await disk.write_zeroes(offset, length, fua=fua)
        if fua:
            for block in blocks:
                power.stable[block] = stamp
        elif rng.random() < 0.2:
            await disk.flush()
            power.stable = power.begun.copy()


async def check(base: MemoryDisk, path: Path, stamps: dict[bytes, set[int]], cut: Any) -> None:
    image, stable, begun = cut
    path.write_bytes(image)  # noqa: ASYNC240
    with OverlayDisk(base, path) as disk:
        data = await disk.read(0, SIZE)
    for block in range(BLOCKS):
        found = stamps.get(bytes(data[block * BLOCK : (block + 1) * BLOCK]), set())
        assert any(stable[block] <= stamp <= begun[block] for stamp in found), (
            f"block {block} holds {sorted(found)}, not {stable[block]} to {begun[block]}"
        )


def cut_power(directory: Path, power_of: Any, rng: random.Random) -> int:
    """Use an overlay, and look at every file that a power cut could have left."""

    async def main() -> int:
        with MemoryDisk(SIZE) as base:
            await base.write(0, content(0) * BLOCKS)
            path = directory / "overlay"
            with OverlayDisk(base, path) as disk:
                assert disk._file is not None
                disk._file._raw.volatile = False  # wherever the test's directory is
                power = power_of(disk, path, rng)
                await use(disk, power)
            power.cut()
            power.fd = -1
            stamps: dict[bytes, set[int]] = {}
            for stamp in range(61):
                stamps.setdefault(content(stamp), set()).add(stamp)
            for cut in power.cuts:
                await check(base, directory / "cut", stamps, cut)
            return len(power.cuts)

    return homebound.run(main())


@pytest.mark.parametrize("round_", range(2))
def test_power_cuts(tmp_path: Path, power_of: Any, round_: int, seed: int):
    assert cut_power(tmp_path, power_of, random.Random(seed + round_)) > 200


# Bugs, each of which must be found.


def states_before_data(self: OverlayFile) -> None:
    taken = self.states.take_changed()
    self._store(self._seal_states(taken))
    self._raw.flush()
    self.states.stored(taken)


def no_journal(self: OverlayFile, pages: dict[int, bytes]) -> None:
    self._write_places(pages)
    self._raw.flush()


def journal_not_synced(self: OverlayFile, pages: dict[int, bytes]) -> None:
    head, body = pack_journal(self.header, pages)
    self._raw.write(self.header.journal_offset, body)
    self._raw.write(4096, head)
    self._write_places(pages)
    self._raw.flush()


def nothing_synced(self: OverlayFile, pages: dict[int, bytes]) -> None:
    self._write_places(pages)


BUGS = [
    ("persist", states_before_data),
    ("_store", no_journal),
    ("_store", journal_not_synced),
    ("_store", nothing_synced),
]


@pytest.mark.parametrize(("name", "bug"), BUGS, ids=lambda each: getattr(each, "__name__", ""))
def test_bugs_are_found(
    tmp_path: Path, power_of: Any, name: str, bug: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(OverlayFile, name, bug)
    with pytest.raises((AssertionError, ImageError)):
        cut_power(tmp_path, power_of, random.Random(1))
