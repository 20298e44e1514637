"""The exports that are found for each connection: what was opened for a client that has gone."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.block import MemoryDisk
from homebound.block._scripts.plugin import Plugin
from homebound.cli._found import FoundExports, PluginExports

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 10


class Slow:
    """Opens and closes a disk; both wait."""

    def __init__(self) -> None:
        self.opening = threading.Event()
        self.may_open = threading.Event()
        self.may_close = threading.Event()
        self.closed_in_time = False

    def open(self, *_: object) -> int:
        self.opening.set()
        assert self.may_open.wait(PATIENCE)
        return 1

    def close(self, *_: object) -> None:
        self.closed_in_time = self.may_close.wait(PATIENCE)


def plugin_exports(slow: Slow) -> FoundExports:
    module = ModuleType("slow")
    functions = {"open": slow.open, "close": slow.close, "get_size": lambda _: 512}
    vars(module).update(functions, pread=lambda *_: b"")
    plugin = Plugin("slow.py", module, read_only=False)
    plugin.start()
    return FoundExports({}, None, PluginExports(plugin, lambda: None), overlay=False)


def directory_exports(slow: Slow) -> FoundExports:
    disk = MemoryDisk(512)

    def opened(_: str) -> tuple[MemoryDisk, Callable[[], None]]:
        slow.open()
        return disk, partial(_leave, slow, disk)

    directory: Any = SimpleNamespace(open=opened)
    return FoundExports({}, directory, None, overlay=False)


def _leave(slow: Slow, disk: MemoryDisk) -> None:
    slow.close()
    disk.close()


@pytest.mark.parametrize("exports_of", [plugin_exports, directory_exports])
def test_a_disk_whose_client_has_gone_is_closed_in_a_worker(
    exports_of: Callable[[Slow], FoundExports],
):
    """Its close may wait for a flush, or for the plugin's lock; the home went on after that."""
    slow = Slow()
    client: Any = None

    async def main() -> None:
        finding = asyncio.ensure_future(exports_of(slow).find("", client))
        await homebound.to_worker(slow.opening.wait, PATIENCE)
        finding.cancel()
        slow.may_open.set()
        asyncio.get_running_loop().call_later(0.01, slow.may_close.set)
        with pytest.raises(asyncio.CancelledError):
            await finding

    homebound.run(main())
    assert slow.closed_in_time
