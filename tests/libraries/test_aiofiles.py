"""aiofiles: files through the loop's default executor, in several homes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import homebound

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from homebound import IOThread

    Run = Callable[..., Any]

aiofiles = pytest.importorskip("aiofiles")


async def copy(source: Path, target: Path) -> str:
    async with aiofiles.open(source) as lines, aiofiles.open(target, "w") as copied:
        async for line in lines:
            await copied.write(line)
    async with aiofiles.open(target) as copied:
        text: str = await copied.read()
        return text


def test_files_in_two_homes(run: Run, io: IOThread, tmp_path: Path):
    source = tmp_path / "source"
    source.write_text("".join(f"{n}\n" for n in range(20)))

    async def main() -> None:
        copies = await asyncio.gather(
            copy(source, tmp_path / "here"), io.spawn(copy(source, tmp_path / "there"))
        )
        assert copies == [source.read_text()] * 2
        assert homebound.block_on(copy(source, tmp_path / "nested")) == source.read_text()

    run(main())


def test_a_file_moves_with_its_task(run: Run, io: IOThread, tmp_path: Path):
    async def main() -> None:
        async with (
            homebound.on(io.context),
            aiofiles.tempfile.NamedTemporaryFile(dir=tmp_path) as file,
        ):
            await file.write(b"written in an I/O thread")
            await file.seek(0)
            assert await file.read() == b"written in an I/O thread"

    run(main())
