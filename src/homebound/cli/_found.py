"""The exports that are found for each connection: of a directory or a plugin, with overlays."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from .._sync.semaphore import Semaphore
from ..block import OverlayDisk
from ..block._scripts.nbdkit_module import SERIALIZE_CONNECTIONS, Session
from ..block._scripts.plugin_disk import PluginDisk
from ..block._to_end import close_in_worker, to_end
from ..nbd import Export

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..block import Disk
    from ..block._scripts.plugin import Plugin
    from ..nbd import ClientInfo
    from ._directory import Directory


class PluginExports:
    """The exports of an nbdkit plugin: every name, as the plugin sees fit."""

    def __init__(self, plugin: Plugin, shutdown: Callable[[], None]) -> None:
        self.plugin = plugin
        self._shutdown = shutdown
        # By the thread model that allows one connection at a time, the next one waits.
        self._turn = Semaphore(1) if plugin.model == SERIALIZE_CONNECTIONS else None

    async def find(self, name: str, client: ClientInfo) -> Export:
        """Open the plugin for a connection. Raises ScriptError."""
        if self._turn is not None:
            await self._turn.acquire()
        opened: list[PluginDisk] = []
        try:
            await to_end(partial(self._open_into, opened, name, client))
        except BaseException:
            if opened:  # the client has gone meanwhile; calls of others may hold the plugin's lock
                await close_in_worker(partial(self._close, opened[0]))
            else:
                self._end_turn()
            raise
        (disk,) = opened
        return Export(disk, disk.description, on_close=partial(self._close, disk))

    def names(self) -> list[tuple[str, str]]:
        """Return names and descriptions. Blocks. Raises ScriptError."""
        return self.plugin.exports(Session(shutdown=self._shutdown))

    def _open_into(self, opened: list[PluginDisk], name: str, client: ClientInfo) -> None:
        plugin = self.plugin
        session = Session(name, client, self._shutdown)
        if not name:
            session = replace(session, export_name=plugin.default_export(session))
        opened.append(PluginDisk(plugin, session))

    def _close(self, disk: PluginDisk) -> None:
        disk.owns(self._end_turn)  # when the calls under way have ended, too
        disk.close()

    def _end_turn(self) -> None:
        if self._turn is not None:
            self._turn.release()


class FoundExports:
    """All exports of the command line, as `NBDServer` finds them."""

    def __init__(
        self,
        fixed: Mapping[str, Disk],
        directory: Directory | None,
        plugin: PluginExports | None,
        *,
        overlay: bool,
    ) -> None:
        self._fixed = fixed
        self._directory = directory
        self._plugin = plugin
        self._overlay = overlay

    async def find(self, name: str, client: ClientInfo) -> Export | None:
        """Return what is served under a name, with an overlay of its own if that is wanted."""
        export = await self._find(name, client)
        if export is None or not self._overlay:
            return export
        try:
            disk = OverlayDisk(export.disk)
        except BaseException:
            await close_in_worker(export.on_close or export.disk.close)
            raise
        # Each connection has data of its own, so several are not one disk.
        disk.shared_cache = False
        below = export.on_close
        return Export(disk, export.description, on_close=partial(_close_both, disk, below))

    async def _find(self, name: str, client: ClientInfo) -> Export | None:
        if name in self._fixed:
            return Export(self._fixed[name], on_close=_nothing)
        if self._directory is not None:
            opened = await self._open(self._directory, name)
            if opened is not None:
                disk, leave = opened
                return Export(disk, on_close=leave)
        return None if self._plugin is None else await self._plugin.find(name, client)

    @staticmethod
    async def _open(directory: Directory, name: str) -> tuple[Disk, Callable[[], None]] | None:
        results: list[tuple[Disk, Callable[[], None]]] = []

        def open_it() -> None:
            result = directory.open(name)
            if result is not None:
                results.append(result)

        try:
            await to_end(open_it)
        except asyncio.CancelledError:
            for _, leave in results:
                await close_in_worker(leave)
            raise
        return results[0] if results else None

    async def list(self) -> list[Any]:
        """Return the names of all exports, of the plugin with descriptions."""
        listed: list[Any] = list(self._fixed)
        if self._directory is not None:
            listed += await to_end(self._directory.names)
        if self._plugin is not None:
            listed += await to_end(self._plugin.names)
        return listed


def _close_both(disk: Disk, below: Callable[[], object] | None) -> None:
    try:
        disk.close()
    finally:
        if below is not None:
            below()


def _nothing() -> None:
    """Leave a disk open that is open as long as the server."""
