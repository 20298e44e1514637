"""An overlay whose user is killed at any moment, again and again: nothing stable is lost.

    python tests/block/kill_overlay.py ROUNDS [DIRECTORY] [SEED]

A child writes, zeroes, flushes and commits, and says so in a pipe: what it begins, and what was
acknowledged as stable. It is killed with SIGKILL after a random time. Then the overlay must open,
and each block must hold, whole, the last stable write to it or one begun after that.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import homebound
from homebound.block import FileDisk, OverlayDisk

BLOCK = 4096
BLOCKS = 128
SIZE = BLOCKS * BLOCK - 1000  # the last block is short
WORKERS = 4  # each has every fourth group of blocks
GROUP = 4


def content(stamp: int, block: int) -> bytes:
    """What the write with this stamp puts into the block; stamps that are even are zeroes."""
    length = min(BLOCK, SIZE - block * BLOCK)
    return bytes(length) if stamp % 2 == 0 else (stamp.to_bytes(8, "big") * BLOCK)[:length]


# The child.


class Child:
    def __init__(self, disk: OverlayDisk, seed: int, stamp: int) -> None:
        self.disk = disk
        self.random = random.Random(seed)
        self.stamp = stamp
        self.flushes = 0

    def say(self, *words: object) -> None:
        """One write to a pipe is whole, or was not made."""
        os.write(1, (" ".join(map(str, words)) + "\n").encode())

    async def work(self, mine: int) -> None:
        while True:
            group = self.random.randrange(mine, BLOCKS // GROUP, WORKERS) * GROUP
            first = group + self.random.randrange(GROUP)
            count = self.random.randint(1, group + GROUP - first)
            await self.change(first, count)
            if self.random.random() < 0.1:
                await self.flush()

    async def change(self, first: int, count: int) -> None:
        self.stamp += 1
        stamp, fua = self.stamp, self.random.random() < 0.3
        self.say("begin", stamp, first, count)
        offset = first * BLOCK
        if stamp % 2 == 0:
            length = min(count * BLOCK, SIZE - offset)
            change = self.random.choice([self.disk.write_zeroes, self.disk.trim])
            await change(offset, length, fua=fua)
        else:
            data = b"".join(content(stamp, block) for block in range(first, first + count))
            if fua or not self.disk.try_write(offset, data):
                await self.disk.write(offset, data, fua=fua)
        self.say("stable" if fua else "done", stamp, first, count)

    async def flush(self) -> None:
        self.flushes += 1
        number = self.flushes
        self.say("flush", number)
        await self.disk.flush()
        self.say("flushed", number)

    async def main(self) -> None:
        async with asyncio.TaskGroup() as group:
            for mine in range(WORKERS):
                group.create_task(self.work(mine))
            while True:
                await asyncio.sleep(self.random.random() * 0.05)
                await self.disk.commit()


def child(base: str, path: str, seed: int, stamp: int) -> None:
    os.write(1, b"started\n")
    with FileDisk(base) as below, OverlayDisk(below, path) as disk:
        homebound.run(Child(disk, seed, stamp).main())


# The parent.


class History:
    """For each block the stamps of its writes in order, from the last stable one on."""

    def __init__(self) -> None:
        self.writes: list[list[int]] = [[0] for _ in range(BLOCKS)]
        self.stable = [0] * BLOCKS  # indices into those
        self.last = 0

    def follow(self, lines: list[str]) -> None:
        done: list[int] = self.stable.copy()
        at_flush: dict[int, list[int]] = {}
        for line in lines:
            word, *numbers = line.split()
            values = list(map(int, numbers))
            if word == "begin":
                self.last = values[0]
                for block in range(values[1], values[1] + values[2]):
                    self.writes[block].append(values[0])
            elif word in ("done", "stable"):
                for block in range(values[1], values[1] + values[2]):
                    done[block] = len(self.writes[block]) - 1
                    if word == "stable":
                        self.stable[block] = done[block]
            elif word == "flush":
                at_flush[values[0]] = done.copy()
            elif word == "flushed":
                self.stable = [
                    max(pair) for pair in zip(self.stable, at_flush[values[0]], strict=True)
                ]

    def check(self, data: bytes) -> None:
        """The disk holds what it may, and that is where the next child begins."""
        for block, writes in enumerate(self.writes):
            found = data[block * BLOCK : (block + 1) * BLOCK]
            allowed = writes[self.stable[block] :]
            held = [stamp for stamp in allowed if content(stamp, block) == found]
            assert held, f"block {block} holds {found[:16].hex()}..., not one of {allowed}"
            self.writes[block], self.stable[block] = [held[-1]], 0


def read_all(base: str, path: str) -> bytes:
    async def main() -> bytes:
        with FileDisk(base, read_only=True) as below, OverlayDisk(below, path) as disk:
            return bytes(await disk.read(0, SIZE))

    return homebound.run(main())


def run(rounds: int, directory: Path, seed: int) -> History:
    """Kill so many children. Raises AssertionError if something was lost or mixed."""
    rng = random.Random(seed)
    base, path = str(directory / "base"), str(directory / "overlay")
    Path(base).write_bytes(bytes(SIZE))
    history = History()
    for _ in range(rounds):
        arguments = [sys.executable, __file__, "child", base, path]
        arguments += [str(rng.randrange(1 << 30)), str(history.last)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"started\n"
            time.sleep(rng.random() ** 2 * 0.3)
            process.send_signal(signal.SIGKILL)
            told = process.stdout.read().decode()
        assert process.returncode == -signal.SIGKILL
        history.follow(told.splitlines())
        history.check(read_all(base, path))
    return history


if __name__ == "__main__":
    if sys.argv[1] == "child":
        child(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        chosen = int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(1 << 30)
        parent = sys.argv[2] if len(sys.argv) > 2 else None
        with tempfile.TemporaryDirectory(dir=parent) as place:
            result = run(int(sys.argv[1]), Path(place), chosen)
        print(f"seed {chosen}: {sys.argv[1]} kills, {result.last} writes begun, nothing lost")  # noqa: T201
