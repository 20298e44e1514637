"""The announcement of a server: the URIs of its exports."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from ._sizes import show_size
from ._stdio import put, tell

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..block import Disk


class Announced(Protocol):
    """One line of the announcement."""

    @property
    def name(self) -> str:
        """The name of the export, for its URI."""

    @property
    def label(self) -> str:
        """The name of the export, in messages."""

    @property
    def size(self) -> int | None:
        """The size of the export in bytes, if it is known."""

    @property
    def details(self) -> str:
        """The words that follow the label."""

    @property
    def by_name(self) -> bool:
        """True if clients find more exports, under names that they append to the URI."""


@dataclass(frozen=True)
class NamedDisk:
    """A disk with the name of its export; `label` is its name in messages."""

    name: str
    label: str
    disk: Disk
    round_size: int = 1
    overlaid: bool = False  # each client has an overlay of its own over it
    by_name: bool = False

    @property
    def size(self) -> int:
        """The size of the export in bytes: that of the disk, rounded up."""
        return -(-self.disk.size // self.round_size) * self.round_size

    @property
    def details(self) -> str:
        """The size, and the words ", read-only" if clients cannot write."""
        if self.overlaid:
            access = ", an overlay for each client"
        else:
            access = ", read-only" if self.disk.read_only else ""
        return f", {show_size(self.size)}{access}"


@dataclass(frozen=True)
class NamedSource:
    """Exports that are found when a client asks for them."""

    name: str
    label: str
    by_name: bool = False
    size: None = None
    details: str = ""


def announce(uris: Sequence[str], exports: Iterable[Announced]) -> str:
    """Write the URIs to standard output, for scripts, and a line an export to standard error.

    Returns the line of the first export. Raises OutputError.
    """
    lines = []
    for export in exports:
        own = [uri_of(uri, export.name) for uri in uris]
        for uri in own:
            put(uri)
        if export.by_name:
            own = [_uri_of_any(uri) for uri in own]
        where = " and ".join(own) or "a socket that has no URI"
        lines.append(f"serving {export.label}{export.details}, at {where}")
        tell(lines[-1])
    if sys.stderr is not None and sys.stderr.isatty():
        tell("Ctrl-C stops")
    return lines[0]


def _uri_of_any(uri: str) -> str:
    place, mark, query = uri.partition("?")
    return f"{place.rpartition('/')[0]}/NAME{mark}{query}"


def uri_of(uri: str, name: str) -> str:
    """Return the URI of the export `name`, from that of another one at the same address.

    >>> from homebound.cli._announce import uri_of
    >>> uri_of("nbd+unix:///a?socket=/run/nbd", "b c")
    'nbd+unix:///b%20c?socket=/run/nbd'
    """
    place, mark, query = uri.partition("?")
    return f"{place.rpartition('/')[0]}/{quote(name, safe='')}{mark}{query}"
