"""Send work to other machines: a Dask cluster compresses the blocks of a disk image.

    python examples/run_elsewhere.py [--kill] [image]

`run_in` takes the executor of any Dask client. Here the cluster is two processes on loopback; with
`Client("tcp://scheduler:8786")` the same program uses the machines of that scheduler. With `--kill`
one of the two processes is killed at work: Dask has another one compress its blocks, and the tasks
that wait for them do not notice. Needs the extra `dask`.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import tempfile
import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from distributed import Client, LocalCluster

import homebound

if TYPE_CHECKING:
    from concurrent.futures import Executor

BLOCK = 256 << 10  # bytes
WINDOW = 8  # blocks in flight at once: each is in memory here, and at the scheduler


def compress(block: bytes) -> tuple[bytes, int]:
    """Compress a block, in another process or on another machine; only the arguments are sent."""
    return zlib.compress(block, level=9), os.getpid()


def read(image: Path, number: int) -> bytes:
    with image.open("rb") as file:
        file.seek(number * BLOCK)
        return file.read(BLOCK)


async def elsewhere(executor: Executor, block: bytes) -> tuple[bytes, int]:
    for _ in range(3):
        try:
            return await homebound.run_in(executor, compress, block)
        except ValueError:
            # When a process dies as its result arrives, Dask's executor takes that for an error,
            # and fails to read it as one. Call again.
            continue
    raise RuntimeError("three processes in a row died with the result")


async def compress_all(
    image: Path, size: int, executor: Executor, victim: int | None
) -> Counter[int]:
    """Compress an image of `size` bytes block by block; return each process's number of blocks."""
    window = homebound.Semaphore(WINDOW)
    done_by: Counter[int] = Counter()
    compressed = 0  # bytes

    async def one(number: int) -> None:
        nonlocal compressed
        async with window:
            block = await homebound.to_worker(read, image, number)  # to a thread,
            packed, process = await elsewhere(executor, block)  # to a process
            assert await homebound.to_worker(zlib.decompress, packed) == block
            compressed += len(packed)
            done_by[process] += 1
            if process == victim and done_by[victim] == 1:
                os.kill(victim, signal.SIGKILL)  # it has been given more
                print(f"killed process {victim}")

    async with homebound.TaskGroup() as group:
        for number in range(-(-size // BLOCK)):
            group.create_task(one(number))
    print(f"{size} bytes in {done_by.total()} blocks, {compressed} bytes compressed")
    return done_by


def make_image(path: Path) -> None:
    """Make an image of 8 MiB, of which half is noise."""
    with path.open("wb") as file:
        for _ in range(16):
            file.write(os.urandom(BLOCK) + bytes(BLOCK))


def main() -> None:
    parser = argparse.ArgumentParser(description="Compress a disk image's blocks in two processes.")
    parser.add_argument("image", type=Path, nargs="?", help="default: 8 MiB of noise and zeros")
    parser.add_argument("--kill", action="store_true", help="kill one of the processes at work")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        image = options.image
        if image is None:
            image = Path(folder, "disk.img")
            make_image(image)
        victim, _ = client.run(os.getpid).values()
        # pure=False: equal calls are different jobs, as in every other executor.
        executor = client.get_executor(pure=False)
        size = image.stat().st_size
        work = compress_all(image, size, executor, victim if options.kill else None)
        done_by = homebound.run(work)
        for process, blocks in done_by.items():
            print(f"process {process}: {blocks} blocks")


if __name__ == "__main__":
    main()
