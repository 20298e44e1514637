"""Helpers for the tests of overlays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import homebound

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from homebound.block import (
        OverlayDisk,
    )

SIZE = 100_000
BLOCK = 4096


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    homebound.run(main())


def content(path: Path) -> bytes:
    return path.read_bytes()


def names(place: Path) -> list[str]:
    return sorted(each.name for each in place.iterdir())


async def read_all(disk: OverlayDisk) -> bytearray:
    return await disk.read(0, disk.size)
