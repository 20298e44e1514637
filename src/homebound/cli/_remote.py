"""Disks on other NBD servers, as the commands connect to them."""

from __future__ import annotations

from dataclasses import dataclass

from ..nbd import NBDDisk
from ..nbd._client.uri import parse_uri

RECONNECT_DELAY: float = 30  # seconds
REQUEST_TIMEOUT: float = 300  # seconds for a server that is served on; see docs/serve.md: loops
DIRTY_BITMAP = "qemu:dirty-bitmap:"  # how the names of QEMU's contexts for bitmaps begin


def check_uri(uri: str) -> str:
    """Return `uri` unchanged. Raises ValueError, which says what is wrong with it."""
    parse_uri(uri)
    return uri


@dataclass(frozen=True)
class Link:
    """The options of connections to other servers."""

    connections: int = 1
    reconnect_delay: float = 0.0
    request_timeout: float | None = None

    async def connect(self, uri: str, *, read_only: bool, meta: tuple[str, ...] = ()) -> NBDDisk:
        """Connect to the export that `uri` names. Raises NBDError."""
        return await NBDDisk.connect(
            uri,
            connections=self.connections,
            reconnect_delay=self.reconnect_delay,
            request_timeout=self.request_timeout,
            read_only=read_only,
            meta=meta,
        )
