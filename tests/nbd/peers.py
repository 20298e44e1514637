"""Other programs, run in tests."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import os


async def peer(*command: str | os.PathLike[str], fails: bool = False) -> str:
    """Run another program; return its output."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
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
