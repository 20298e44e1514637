"""The properties of a disk or an NBD export, under nbdinfo's names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from ..nbd import TransmissionFlag

if TYPE_CHECKING:
    from ..block import Disk
    from ..nbd._client.survey import OfferedExport

# What --can takes, and the flag that answers it; None: always true, once there is a connection.
_ANSWERS = {
    "connect": None,
    "read": None,
    "write": "is_read_only",
    "read-only": "is_read_only",
    "rotational": "is_rotational",
    "tls": "TLS",
    "structured-reply": "structured",
    "cache": "can_cache",
    "df": "can_df",
    "fast-zero": "can_fast_zero",
    "flush": "can_flush",
    "fua": "can_fua",
    "multi-conn": "can_multi_conn",
    "trim": "can_trim",
    "zero": "can_zero",
}
_FLAGS = {
    "is_rotational": TransmissionFlag.ROTATIONAL,
    "is_read_only": TransmissionFlag.READ_ONLY,
    "can_cache": TransmissionFlag.SEND_CACHE,
    "can_df": TransmissionFlag.SEND_DF,
    "can_fast_zero": TransmissionFlag.SEND_FAST_ZERO,
    "can_flush": TransmissionFlag.SEND_FLUSH,
    "can_fua": TransmissionFlag.SEND_FUA,
    "can_multi_conn": TransmissionFlag.CAN_MULTI_CONN,
    "can_trim": TransmissionFlag.SEND_TRIM,
    "can_zero": TransmissionFlag.SEND_WRITE_ZEROES,
}
CAPABILITIES = tuple(_ANSWERS)
_STEP = 1024
_LETTERS = " KMGTPE"


@dataclass(frozen=True)
class Facts:
    """A disk: `flags` are its properties in nbdinfo's order, `blocks` its block sizes."""

    name: str | None  # of the export; None: it is no export
    size: int
    flags: dict[str, bool]
    blocks: tuple[int, int, int | None] | None  # smallest, preferred, largest
    where: str = ""  # its URI or path
    kind: str = ""  # of an image: its format
    description: str = ""
    content: str | None = None  # as `file` describes it
    contexts: tuple[str, ...] = ()
    server: dict[str, Any] = field(default_factory=dict)  # of the connection

    def can(self, capability: str) -> bool:
        """Return whether it has a capability, one of CAPABILITIES."""
        flag = _ANSWERS[capability]
        if flag is None:
            return True
        answer = bool({**self.server, **self.flags}.get(flag))
        return not answer if capability == "write" else answer

    def fields(self) -> dict[str, Any]:
        """Return the entry of nbdinfo's `exports`."""
        entry: dict[str, Any] = {}
        if self.name is not None:
            entry["export-name"] = self.name
        if self.description:
            entry["description"] = self.description
        if self.content is not None:
            entry["content"] = self.content
        entry["uri" if self.name is not None else "path"] = self.where
        if self.kind:
            entry["format"] = self.kind
        if self.contexts:
            entry["contexts"] = list(self.contexts)
        entry |= self.flags
        if self.blocks is not None:
            smallest, preferred, largest = self.blocks
            entry |= {"block_size_minimum": smallest, "block_size_preferred": preferred}
            if largest is not None:
                entry["block_size_maximum"] = largest
        return {**entry, "export-size": self.size, "export-size-str": short_size(self.size)}

    def lines(self) -> list[str]:
        """Return the lines for people, as nbdinfo has them."""
        title = f'export="{self.name}":' if self.name is not None else f"{self.where}:"
        lines = [title, f"\texport-size: {_with_short(self.size)}"]
        shown = {key: value for key, value in self.fields().items() if key not in _IN_TITLE}
        for key, value in shown.items():
            if isinstance(value, list):
                lines += [f"\t{key}:", *(f"\t\t{each}" for each in value)]
            elif isinstance(value, bool):
                lines.append(f"\t{key}: {'true' if value else 'false'}")
            else:
                lines.append(f"\t{key}: {_with_short(value) if isinstance(value, int) else value}")
        return lines


_IN_TITLE = {"export-name", "path", "export-size", "export-size-str"}


def facts_of(disk: Disk, where: str, *, read_only: bool, kind: str) -> Facts:
    """Return what a disk that is no NBD export says of itself."""
    changes = not read_only
    flags = {
        "is_rotational": False,
        "is_read_only": read_only,
        "can_cache": True,
        "can_df": False,
        "can_fast_zero": changes and disk.can_fast_zero,
        "can_flush": True,
        "can_fua": True,
        "can_multi_conn": disk.shared_cache,
        "can_trim": changes,
        "can_zero": changes,
    }
    blocks = (disk.minimum_block, disk.preferred_block, disk.maximum_transfer)
    return Facts(None, disk.size, flags, blocks, where, kind)


def facts_of_export(offered: OfferedExport, uri: str, server: dict[str, Any]) -> Facts:
    """Return what a server says of an export."""
    export = offered.export
    flags = {name: bool(export.flags & flag) for name, flag in _FLAGS.items()}
    return Facts(
        export.name,
        export.size,
        flags,
        export.block_sizes if export.sizes_told else None,
        with_export(uri, export.name),
        description=export.description,
        contexts=offered.contexts,
        server=server,
    )


def with_export(uri: str, name: str) -> str:
    """Return the URI of another export of the same server.

    >>> from homebound.cli._facts import with_export
    >>> with_export("nbd://host", "a b"), with_export("nbd+unix:///x?socket=/s", "")
    ('nbd://host/a%20b', 'nbd+unix:///?socket=/s')
    """
    parts = urlsplit(uri)
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}/{quote(name, safe='')}{query}"


def short_size(size: int) -> str:
    """Return the size in the largest unit of which it is a multiple, as nbdinfo writes it.

    >>> from homebound.cli._facts import short_size
    >>> short_size(1 << 20), short_size(1000)
    ('1M', '1000')
    """
    unit = 0
    while size and size % _STEP == 0 and unit < len(_LETTERS) - 1:
        size //= _STEP
        unit += 1
    return f"{size}{_LETTERS[unit].strip()}"


def _with_short(size: int) -> str:
    short = short_size(size)
    return f"{size} ({short})" if short != str(size) else str(size)
