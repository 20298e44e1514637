"""`homebound info`: what a disk or an NBD server says of itself."""

from __future__ import annotations

import json
import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._disks import label_of
from ._errors import CommandError
from ._facts import Facts, facts_of
from ._map import ALLOCATION, put_map, spans
from ._places import open_place
from ._stdio import put

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ..block import Disk

_NO = 2  # as nbdinfo answers --can


@dataclass(frozen=True)
class InfoJob:
    """What is asked, as the command line describes it."""

    spec: str
    context: str | None = None  # of --map
    lists: bool = False
    can: str | None = None
    as_json: bool = False

    async def run(self) -> int:
        """Answer; return the exit status. Raises CommandError, DiskError or NBDError."""
        async with AsyncExitStack() as stack:
            disk = stack.enter_context(await open_place(self.spec, read_only=True))
            if self.context is not None:
                await put_map(self.context, self._extents(disk), as_json=self.as_json)
                return 0
            facts = facts_of(disk, label_of(self.spec), read_only=self._is_read_only())
            if self.can is not None:
                return 0 if facts.can(self.can) else _NO
            self._show([facts])
        return 0

    def _is_read_only(self) -> bool:
        """Return whether it could not be opened for writing."""
        return os.path.exists(self.spec) and not os.access(self.spec, os.W_OK)  # noqa: PTH110

    def _show(self, exports: list[Facts]) -> None:
        server = exports[0].server if exports else {}
        if self.as_json:
            put(json.dumps({**server, "exports": [facts.fields() for facts in exports]}, indent=2))
            return
        for facts in exports:
            for line in facts.lines():
                put(line)

    async def _extents(self, disk: Disk) -> AsyncIterator[tuple[int, int]]:
        if self.context != ALLOCATION:
            label = label_of(self.spec)
            raise CommandError(f"{label!r} has no context {self.context!r}; it has {ALLOCATION}")
        for offset, length in spans(disk.size):
            for extent in await disk.block_status(offset, length):
                yield extent.length, extent.hole + 2 * extent.zero
