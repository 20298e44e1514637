"""An export as its server has described it: the part of NBDDisk that has no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ...block import Disk

if TYPE_CHECKING:
    from .._protocol.wire import TransmissionFlag
    from .client import Client


class StatusExtent(NamedTuple):
    """`length` bytes with the same `flags` in a metadata context.

    >>> from homebound.nbd import StatusExtent
    >>> StatusExtent(4096, flags=3)
    StatusExtent(length=4096, flags=3)

    Called from: any thread.
    """

    length: int
    flags: int


class RemoteDisk(Disk):
    """A disk that a server has described."""

    _client: Client
    _flags: TransmissionFlag

    # What the server has said.

    @property
    def uri(self) -> str:
        """The URI that it was connected to, or words for a socket.

        Called from: any thread.
        """
        return self._client.target.label

    @property
    def export(self) -> str:
        """The name of the export.

        Called from: any thread.
        """
        return self._client.export.name

    @property
    def description(self) -> str:
        """The server's description of the export; often empty.

        Called from: any thread.
        """
        return self._client.export.description

    @property
    def flags(self) -> TransmissionFlag:
        """The capabilities of the export, as they were when it was connected.

        Called from: any thread.
        """
        return self._flags

    @property
    def structured(self) -> bool:
        """True if the server replies in chunks, as it must for holes and metadata.

        Called from: any thread.
        """
        return self._client.export.structured

    @property
    def block_sizes(self) -> tuple[int, int, int] | None:
        """The minimum, preferred and largest block that the server has told, in bytes, or None.

        Called from: any thread.
        """
        export = self._client.export
        return export.block_sizes if export.sizes_told else None

    @property
    def connections(self) -> int:
        """The number of connections.

        Called from: any thread.
        """
        return len(self._client.channels)

    @property
    def interruptions(self) -> int:
        """The number of connections that were lost. See `Disk.interruptions`.

        Called from: any thread.
        """
        return self._client.interruptions

    def contexts(self) -> tuple[str, ...]:
        """Return the metadata contexts that `status` knows, of those asked for.

        Called from: any thread.
        """
        return tuple(self._client.export.contexts.values())
