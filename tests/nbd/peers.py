"""Other programs, run in tests, and the disks that are served to them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.block import FileDisk, MemoryDisk, OverlayDisk
from homebound.nbd import NBDServer

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Iterator

    from homebound.block import Disk

SIZE = 32 << 20
PIECE = 64 << 10  # bytes of noise between holes


async def peer(*command: str | os.PathLike[str], fails: bool = False) -> str:
    """Run another program; return its output."""
    need(command[0])
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    text = output.decode(errors="replace")
    assert bool(process.returncode) == fails, text
    return text


def need(*programs: str | os.PathLike[str]) -> None:
    """Skip the test if a program is missing."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


@contextlib.contextmanager
def disk_of(kind: str) -> Iterator[Disk]:
    """Make an empty disk in memory, on a kind of file system, or over another one."""
    if kind == "memory":
        with MemoryDisk(SIZE) as disk:
            yield disk
        return
    parent = {"tmpfs": "/dev/shm"}.get(kind, "/var/tmp")
    with tempfile.TemporaryDirectory(dir=parent) as directory:
        image = Path(directory, "image")
        with image.open("wb") as file:
            file.truncate(SIZE)
        with FileDisk(image, read_only=kind == "overlay") as base:
            if kind == "overlay":
                with OverlayDisk(base, Path(directory, "changes")) as overlay:
                    yield overlay
            else:
                yield base


@contextlib.asynccontextmanager
async def serving(exports: Any, path: Path, threads: int = 0) -> AsyncIterator[str]:
    """Serve `exports`; yield the URI of the default one."""
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(homebound.IOThreadPool(threads)) if threads else ()
        async with NBDServer(exports, io_threads=pool) as server:
            await server.listen_unix(path / "socket")
            yield server.uris[0]


def noise(size: int) -> bytes:
    """Make random bytes with holes, as images have: every third piece is zero."""
    made = random.Random(1)
    pieces = (made.randbytes(PIECE) if n % 3 else bytes(PIECE) for n in range(size // PIECE))
    return b"".join(pieces)


def prepare_mount(place: Path) -> list[str]:
    """Make a directory; return the command that unmounts it."""
    need("nbdfuse", "umount")
    if not Path("/dev/fuse").exists():
        pytest.skip("there is no /dev/fuse")
    place.mkdir()
    helper = shutil.which("fusermount3")  # which root can do without
    return ["umount", str(place)] if helper is None else [helper, "-u", str(place)]


@contextlib.asynccontextmanager
async def mounted(uri: str, place: Path) -> AsyncIterator[Path]:
    """Have nbdfuse make a file of an export."""
    unmount = prepare_mount(place)
    pid = place.with_suffix(".pid")
    process = await asyncio.create_subprocess_exec(
        "nbdfuse", "-P", pid, place / "disk", uri, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        while not pid.exists():
            if process.returncode is not None:
                pytest.skip(f"no FUSE: {(await process.stderr.read()).decode()}")
            await asyncio.sleep(0.01)
        yield place / "disk"
    finally:
        if process.returncode is None:
            await peer(*unmount)  # which ends it, once all is written
            assert await process.wait() == 0
