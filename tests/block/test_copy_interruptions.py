"""Copies to a server that is restarted, and has lost what was not flushed."""

from __future__ import annotations

import asyncio
import random
import tempfile
from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

import homebound
from homebound.block import MemoryDisk, SliceDisk
from homebound.block._copying.checkpoints import Checkpoints, keep_stable
from homebound.block._copying.engine import Copy
from homebound.block._copying.errors import CopyError
from homebound.block._copying.state import CopyState, load_state
from homebound.block._copying.streams import CopyIn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection
    from pathlib import Path

    from homebound.block._operations import Buffer

T = TypeVar("T")
PIECE = 4096
PIECES = 12
SIZE = PIECES * PIECE - 1000
DATA = random.Random(4).randbytes(SIZE)


class Restarting(SliceDisk):
    """A disk on a server that is restarted before some of its requests, told by their numbers."""

    def __init__(self, disk: MemoryDisk, when: Collection[int]) -> None:
        super().__init__(disk, 0, disk.size)
        self.maximum_transfer = PIECE
        self.memory = disk
        self.stable = self.content()
        self.when = when
        self.requests = 0
        self.restarts = 0

    @property
    def interruptions(self) -> int:
        return self.restarts

    def content(self) -> bytearray:
        data = bytearray(self.memory.size)
        assert self.memory.try_read_into(0, memoryview(data))
        return data

    def try_write(self, offset: int, data: Buffer) -> bool:
        del offset, data
        return False

    async def _carry_out(
        self, command: str, offset: int, length: int, go_on: Callable[[int], Awaitable[T]]
    ) -> T:
        self.requests += 1
        if self.requests in self.when:
            self.restarts += 1
            assert self.memory.try_write(0, self.stable)
        result = await super()._carry_out(command, offset, length, go_on)
        if command == "flush":
            self.stable = self.content()
        return result


@given(st.sets(st.integers(1, 3 * PIECES), max_size=6), st.booleans())
def test_nothing_is_missing(when: set[int], often: bool):  # noqa: FBT001  (Hypothesis's)
    async def main() -> None:
        with MemoryDisk(SIZE) as source, MemoryDisk(SIZE + 500) as memory:
            await source.write(0, DATA)
            await memory.write(0, b"o" * (SIZE + 500))
            target = Restarting(memory, when)
            copy = Copy(source, target)
            flushing = asyncio.ensure_future(flush_often(copy) if often else keep_stable(copy))
            await copy.run()
            flushing.cancel()
            await asyncio.wait((flushing,))
            assert copy.done_until == copy.stable == SIZE
            assert target.stable == DATA + b"o" * 500

    async def flush_often(copy: Copy) -> None:
        while True:
            await copy.flush()
            await asyncio.sleep(0)

    homebound.run(main())


class Watched(Checkpoints):
    """Checkpoints that are compared with what the target would have after a restart."""

    def __init__(self, target: Restarting, copy: Copy, path: str) -> None:
        super().__init__(copy, path, CopyState({}, {}))
        self.target = target
        self.seen: list[int] = []

    async def save(self) -> None:
        await super().save()
        done = self._state.done
        self.seen.append(done)
        assert self.target.stable[:done] == DATA[:done]


@given(st.sets(st.integers(1, 3 * PIECES), max_size=6))
def test_a_checkpoint_never_says_more_than_is_stable(when: set[int]):
    async def main(path: str) -> None:
        with MemoryDisk(SIZE) as source, MemoryDisk(SIZE) as memory:
            await source.write(0, DATA)
            target = Restarting(memory, when)
            copy = Copy(source, target)
            checkpoints = Watched(target, copy, path)
            await checkpoints.begin()

            async def save_often() -> None:
                while True:
                    await checkpoints.save()
                    await asyncio.sleep(0)

            saving = asyncio.ensure_future(save_often())
            await copy.run()
            saving.cancel()
            await asyncio.wait((saving,))
            await checkpoints.save()
            state = load_state(path)
            assert state is not None
            assert (state.done, checkpoints.seen[-1]) == (SIZE, SIZE)

    # On a file system in memory: each checkpoint is on stable storage.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        homebound.run(main(f"{directory}/state"))


class TestAStream:
    def copy(self, tmp_path: Path, when: Collection[int], *, keeps: bool) -> bytes:
        (tmp_path / "stream").write_bytes(DATA)

        async def main() -> bytes:
            with MemoryDisk(SIZE) as memory, (tmp_path / "stream").open("rb") as stream:
                target = Restarting(memory, when)
                copy = CopyIn(stream.fileno(), target, keeps=keeps)
                await copy.run()
                assert copy.done_until == SIZE
                return bytes(target.stable)

        return homebound.run(main())

    @pytest.mark.parametrize("when", [[1], [PIECES], [PIECES + 1], [5, 17, 30], range(1, 40, 6)])
    @pytest.mark.parametrize("kept", [3, 128])
    def test_nothing_is_missing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: Collection[int], kept: int
    ):
        monkeypatch.setattr("homebound.block._copying.streams._KEPT", kept)
        assert self.copy(tmp_path, when, keeps=True) == DATA

    def test_a_restart_is_what_loses_data(self, tmp_path: Path):
        """This is what the others would see if nothing were written again."""
        assert self.copy(tmp_path, [PIECES], keeps=False) != DATA

    def test_it_ends_if_that_is_of_no_use(self, tmp_path: Path):
        with pytest.raises(CopyError, match="was lost 10 times before"):
            self.copy(tmp_path, range(1, 10_000), keeps=True)


def test_it_ends_if_nothing_is_ever_stable():
    async def main() -> None:
        with MemoryDisk(SIZE) as source, MemoryDisk(SIZE) as memory:
            target = Restarting(memory, range(1, 10_000))
            with pytest.raises(CopyError, match="was lost 10 times before"):
                await Copy(source, target).run()

    homebound.run(main())
