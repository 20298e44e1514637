"""The content of a disk, as file(1) describes it."""

from __future__ import annotations

import shutil
import subprocess
from functools import partial
from typing import TYPE_CHECKING

from .._workers.to_worker import to_worker

if TYPE_CHECKING:
    from ..block import Disk

_LOOK_AT = 64 << 10  # bytes from the start
_SECONDS = 10  # that it may take


async def content_of(disk: Disk) -> str | None:
    """Return a description; None if `file` is not installed, or the disk cannot be read."""
    program = shutil.which("file")
    if program is None:
        return None
    align = disk.minimum_block
    try:
        start = await disk.read(0, min(disk.size, -(-_LOOK_AT // align) * align))
    except OSError:
        return None
    return await to_worker(partial(_describe, program, bytes(start)))


def _describe(program: str, data: bytes) -> str | None:
    command = [program, "--brief", "-"]
    try:
        done = subprocess.run(  # noqa: S603  (a program found by name)
            command, input=data, capture_output=True, check=True, timeout=_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip() or None
