"""`homebound info`: what a disk or an NBD server says of itself."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..block import FileDisk, MemoryDisk
from ..block._names import is_uri
from ..block._probe import RAW, probe
from ..nbd import NBDDisk
from ..nbd._client.survey import ask_server
from ._content import content_of
from ._disks import is_script, label_of
from ._errors import CommandError
from ._facts import Facts, facts_of, facts_of_export
from ._map import ALLOCATION, put_map, put_totals, spans
from ._places import open_place
from ._stdio import put, tell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ..block import Disk

_NO = 2  # as nbdinfo answers --can


@dataclass(frozen=True)
class InfoJob:
    """The question that the command line asks of a disk or a server."""

    spec: str
    context: str | None = None  # of --map
    lists: bool = False
    can: str | None = None
    as_json: bool = False
    totals: bool = False  # of --map

    async def run(self) -> int:
        """Answer; return the exit status. Raises CommandError, DiskError or NBDError."""
        if self.context is not None:
            await self._map(self.context)
            return 0
        server, exports = await (self._ask() if is_uri(self.spec) else self._look())
        if self.can is not None:
            return 0 if exports[0].can(self.can) else _NO
        self._show(server, exports)
        return 0

    async def _ask(self) -> tuple[dict[str, Any], list[Facts]]:
        """Ask a server; return what it says of itself and of its exports."""
        answer = await ask_server(self.spec, lists=self.lists)
        server = {
            "protocol": "newstyle-fixed" if answer.fixed else "newstyle",
            "TLS": answer.tls,
            "structured": answer.structured,
        }
        exports = [facts_of_export(each, self.spec, server) for each in answer.exports]
        if not self.lists and self.can is None:
            async with await NBDDisk.connect(self.spec, read_only=True) as disk:
                exports = [replace(exports[0], content=await content_of(disk))]
        for name, error in answer.refused.items():
            tell(f"homebound: export {name!r} is left out: {error}")
        return server, exports

    async def _look(self) -> tuple[dict[str, Any], list[Facts]]:
        """Open a disk that is no server's."""
        script = is_script(self.spec)  # it says itself whether it is read-only
        with await open_place(self.spec, read_only=not script) as disk:
            read_only, kind = disk.read_only, ""
            if isinstance(disk, FileDisk):
                read_only, kind = not os.access(disk.path, os.W_OK), RAW
            elif isinstance(disk, MemoryDisk):
                read_only = False
            elif os.path.isfile(self.spec) and not script:  # noqa: ASYNC240, PTH113
                kind = probe(self.spec)
            facts = facts_of(disk, label_of(self.spec), read_only=read_only, kind=kind)
            return {}, [replace(facts, content=await content_of(disk))]

    async def _map(self, context: str) -> None:
        meta = () if context == ALLOCATION else (context,)
        with await open_place(self.spec, read_only=True, meta=meta) as disk:
            has = disk.contexts() if isinstance(disk, NBDDisk) else (ALLOCATION,)
            if context not in has:
                known = ", ".join(has) or "none"
                words = f"{label_of(self.spec)!r} has no context {context!r}; it has {known}"
                raise CommandError(words)
            show = put_totals if self.totals else put_map
            await show(context, _extents(disk, context), as_json=self.as_json)

    def _show(self, server: dict[str, Any], exports: list[Facts]) -> None:
        if self.as_json:
            put(json.dumps({**server, "exports": [facts.fields() for facts in exports]}, indent=2))
            return
        if server:
            tls = "with" if server["TLS"] else "without"
            packets = "structured" if server["structured"] else "simple"
            put(f"protocol: {server['protocol']} {tls} TLS, using {packets} packets")
        for facts in exports:
            for line in facts.lines():
                put(line)


async def _extents(disk: Disk, context: str) -> AsyncIterator[tuple[int, int]]:
    for offset, length in spans(disk.size):
        if isinstance(disk, NBDDisk):
            for each in await disk.status(context, offset, length):
                yield each.length, each.flags
        else:
            for extent in await disk.block_status(offset, length):
                yield extent.length, extent.hole + 2 * extent.zero
