"""A copy that is killed at any moment, again and again, and goes on from its state file.

    python tests/cli/kill_copy.py ROUNDS [DIRECTORY] [SEED]

A child copies from a source that is throttled, and is killed with SIGKILL after a random time. Then
the target must have everything that the state file says is done, and in the end all of it.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import homebound
from homebound.block import FileDisk, ThrottleDisk
from homebound.block._copying.state import load_state
from homebound.cli import _copy

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from homebound.block import Disk

MIB = 1 << 20
SIZE = 24 * MIB + 777
LONGEST = 0.8  # seconds between start and kill; checkpoints are made each quarter of a second


class SlowJob(_copy.CopyJob):
    """A copy from a source that gives so much a second."""

    rate = SIZE / 3

    async def _open_source(self, stack: AsyncExitStack) -> Disk:
        file = stack.enter_context(FileDisk(self.source, read_only=True))
        slow = ThrottleDisk(file, bytes_per_second=self.rate, burst_seconds=0.01)
        return stack.enter_context(slow)


def make_source(path: Path, seed: int) -> None:
    chosen = random.Random(seed)
    with path.open("wb") as file:
        file.truncate(SIZE)
        for offset in range(0, SIZE, MIB):
            file.seek(offset)
            kind = chosen.choice(["data", "data", "zeroes", "hole"])
            length = min(MIB, SIZE - offset)
            if kind != "hole":
                file.write(chosen.randbytes(length) if kind == "data" else bytes(length))


def copy_and_die(job: _copy.CopyJob) -> int:
    """Begin the copy in a child; return the child."""
    child = os.fork()
    if child == 0:
        try:
            homebound.run(job.run())
        finally:
            os._exit(0)
    return child


def done_in(state: Path) -> int:
    saved = load_state(str(state))
    return 0 if saved is None else saved.done


def same(source: Path, target: Path, length: int) -> bool:
    with source.open("rb") as ours, target.open("rb") as theirs:
        return ours.read(length) == theirs.read(length)


def main(rounds: int, directory: Path, seed: int) -> None:
    chosen = random.Random(seed)
    source, target, state = (directory / name for name in ("source", "target", "state"))
    make_source(source, seed)
    job = SlowJob(str(source), str(target), resume=str(state))
    kills = copies = resumed = 0
    while kills < rounds:
        before = done_in(state)
        child = copy_and_die(job)
        time.sleep(chosen.uniform(0, LONGEST))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1
        done = done_in(state)
        resumed += done > before > 0
        if state.exists():
            assert done >= before, (done, before)
            assert same(source, target, done), done
        elif before:  # it was quicker; the next copy begins anew
            assert same(source, target, SIZE)
            copies += 1
    homebound.run(_copy.CopyJob(str(source), str(target), resume=str(state), verify=True).run())
    assert same(source, target, SIZE)
    assert target.stat().st_size == SIZE
    assert not state.exists()
    assert resumed
    print(f"{kills} kills, {copies} copies ended before, {resumed} went on from a state")  # noqa: T201


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=next(iter(sys.argv[2:3]), None)) as made:
        main(int(sys.argv[1]), Path(made), int((sys.argv[3:4] or ["1"])[0]))
