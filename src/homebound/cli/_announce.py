"""The announcement of a server: the URIs of its exports."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from ._sizes import show_size
from ._stdio import put, tell

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..block import Disk


@dataclass(frozen=True)
class NamedDisk:
    """A disk with the name of its export; `label` is its name in messages."""

    name: str
    label: str
    disk: Disk
    round_size: int = 1

    @property
    def size(self) -> int:
        """The size of the export in bytes: that of the disk, rounded up."""
        return -(-self.disk.size // self.round_size) * self.round_size


def announce(uris: Sequence[str], exports: Iterable[NamedDisk]) -> str:
    """Write the URIs to standard output, for scripts, and a line an export to standard error.

    Returns the line of the first export. Raises OutputError.
    """
    lines = []
    for export in exports:
        own = [uri_of(uri, export.name) for uri in uris]
        for uri in own:
            put(uri)
        access = ", read-only" if export.disk.read_only else ""
        where = " and ".join(own) or "a socket that has no URI"
        lines.append(f"serving {export.label}, {show_size(export.size)}{access}, at {where}")
        tell(lines[-1])
    if sys.stderr is not None and sys.stderr.isatty():
        tell("Ctrl-C stops")
    return lines[0]


def uri_of(uri: str, name: str) -> str:
    """Return the URI of the export `name`, from that of another one at the same address.

    >>> from homebound.cli._announce import uri_of
    >>> uri_of("nbd+unix:///a?socket=/run/nbd", "b c")
    'nbd+unix:///b%20c?socket=/run/nbd'
    """
    place, mark, query = uri.partition("?")
    return f"{place.rpartition('/')[0]}/{quote(name, safe='')}{mark}{query}"
