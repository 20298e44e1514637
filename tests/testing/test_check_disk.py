"""check_disk: all of ours pass, and so does a user's; each planted bug is found by its case."""

from __future__ import annotations

import asyncio
import errno
import gc
import io
import os
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from homebound.block import (
    Disk,
    Fault,
    FaultDisk,
    FileDisk,
    LogDisk,
    MemoryDisk,
    OverlayDisk,
    Qcow2Disk,
    SliceDisk,
    ThrottleDisk,
)
from homebound.testing import Case, check_disk, disk_cases

from ..block.qcow2_images import mixed
from .broken_disks import BUGS, SIZE, Buffer, Calls, HangsWhenClosed, NoPowerOfTwo, Simple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Those that pass.


class Maker:
    """Makes disks of one kind, and closes what is below them in the end."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self.directory = directory
        self.below: list[Disk] = []
        self.made = 0

    def keep(self, disk: Disk) -> Disk:
        self.below.append(disk)
        return disk

    def image(self) -> Path:
        self.made += 1
        path = self.directory / f"image{self.made}"
        path.write_bytes(random.Random(self.made).randbytes(SIZE))
        return path

    def memory(self) -> Disk:
        memory = self.keep(MemoryDisk(SIZE))
        memory.try_write(0, random.Random(1).randbytes(SIZE))
        return memory

    def overlay(self) -> OverlayDisk:
        base = self.keep(FileDisk(self.image(), read_only=True))
        return OverlayDisk(base, self.directory / f"overlay{self.made}")

    def qcow2(self) -> Disk:
        path = self.directory / "qcow2"
        path.write_bytes(mixed()[0])
        return Qcow2Disk(path)

    def __call__(self) -> Disk:
        """A new disk of the kind."""
        return KINDS[self.kind](self)


KINDS: dict[str, Callable[[Maker], Disk]] = {
    "memory": lambda _: MemoryDisk(SIZE),
    "large": lambda _: MemoryDisk(1 << 33),
    "read-only": lambda maker: FileDisk(maker.image(), read_only=True),
    "file": lambda maker: FileDisk(maker.image()),
    "slice": lambda maker: SliceDisk(maker.memory(), 333, 70_007),
    "throttle": lambda maker: ThrottleDisk(maker.memory(), iops=1e9),
    "fault": lambda maker: FaultDisk(maker.memory(), []),
    "log": lambda maker: LogDisk(maker.memory(), io.StringIO()),
    "overlay in memory": lambda maker: OverlayDisk(maker.memory(), size=150_000),
    "overlay": Maker.overlay,
    "qcow2": Maker.qcow2,
    "a user's": lambda _: Simple(),
    "a user's whose calls block": lambda _: Calls(),
}


@pytest.fixture
def maker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Maker]:
    made = Maker(request.param, tmp_path)
    yield made
    for disk in made.below:
        disk.close()


@pytest.mark.parametrize("maker", KINDS, indirect=True)
def test_passes(maker: Maker):
    check_disk(maker)


def test_factory_may_be_a_coroutine_function():
    async def make() -> Disk:
        await asyncio.sleep(0)
        return MemoryDisk(SIZE)

    disk_cases()[0](make)


@contextmanager
def failing(disk: Any) -> Iterator[None]:
    """With faults in its base, and in its store."""
    below, store = disk._below, disk._store
    disk._below = type(below)(FaultDisk(below.disk, [Fault(command="read", error="EIO")]))
    disk._store = FaultDisk(store, [Fault(command=("write", "flush"), nth=1, short=1000)])
    try:
        yield
    finally:
        disk._below, disk._store = below, store


@pytest.mark.parametrize("maker", ["overlay", "overlay in memory"], indirect=True)
def test_overlay_survives_faults(maker: Maker):
    others = {case.name for case in disk_cases()}
    check_disk(maker, failing=failing, skip=others)


def case_named(name: str, **options: Any) -> Case:
    return next(case for case in disk_cases(**options) if case.name == name)


@pytest.mark.parametrize("factory", BUGS, ids=lambda each: each.__name__)
def test_bugs_are_found(factory: Callable[[], Disk], caplog: pytest.LogCaptureFixture):
    for name in BUGS[factory]:
        others = {case.name for case in disk_cases()} - {name}
        with pytest.raises(AssertionError, match=f"'{name}' fails"):
            check_disk(factory, skip=others)
        gc.collect()
        assert "never retrieved" not in caplog.text  # of several users that fail, one is reported
        case_named(name)(Simple)


def test_the_suite_names_what_fails():
    others = {case.name for case in disk_cases()} - {"describes itself", "drains"}
    with pytest.raises(AssertionError, match=r"check_disk: 'describes itself' fails: .*is 1000"):
        check_disk(NoPowerOfTwo, skip=others)
    with pytest.raises(ValueError, match="there are no cases"):
        check_disk(Simple, skip=["no such case"])


def test_hangs_are_found():
    with pytest.raises(AssertionError, match="has not ended after"):
        case_named("survives its close under load", patience=2.0)(HangsWhenClosed)


class TestFaults:
    def test_no_oserror(self):
        class Fails(Simple):
            fails = False

            def check(self, offset: int, length: int) -> None:
                if self.fails:
                    raise ZeroDivisionError
                super().check(offset, length)

        self.found(Fails, "no OSError")

    def test_garbage(self):
        class Fails(Simple):
            fails = False

            async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
                if self.fails:
                    self.data[offset : offset + 10] = os.urandom(10)
                    raise OSError(errno.EIO, "fault")
                await super().write(offset, data, fua=fua)

        self.found(Fails, "neither old nor new")

    def found(self, factory: Callable[[], Disk], text: str) -> None:
        @contextmanager
        def with_faults(disk: Any) -> Iterator[None]:
            disk.fails = True
            yield
            disk.fails = False

        with pytest.raises(AssertionError, match=text):
            case_named("survives faults", failing=with_faults)(factory)
