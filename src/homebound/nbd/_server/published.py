"""What a server says about itself: its exports, its addresses, its counters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from .._protocol.export import ExportInfo
from .._protocol.wire import MAX_PAYLOAD, TransmissionFlag

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...block._disk import Disk
    from .lane import Lane

_WRITABLE = TransmissionFlag.SEND_TRIM | TransmissionFlag.SEND_WRITE_ZEROES


@dataclass(frozen=True, slots=True)
class Export:
    """A disk and how it is offered: `description` is for people, `read_only` forbids changes.

    >>> from homebound.block import MemoryDisk
    >>> from homebound.nbd import Export, NBDServer
    >>> disk = MemoryDisk(1 << 20)
    >>> server = NBDServer({"spare": Export(disk, "nothing on it yet", read_only=True)})
    """

    disk: Disk
    description: str = ""
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class ServerStats:
    """Counters of a server, from its beginning; sizes in bytes.

    The threads that serve do not stop to be counted, so the numbers may be of slightly different
    moments.
    """

    clients: int  # connected now
    connections: int  # ever
    requests: int
    errors: int  # replies that carried one
    bytes_read: int  # by clients
    bytes_written: int
    disk_errors: int = 0  # those of `errors` that a disk has raised


def add_up(lanes: Iterable[Lane]) -> ServerStats:
    """The sum over all lanes."""
    lanes = list(lanes)
    return ServerStats(
        clients=sum(len(lane.members) for lane in lanes),
        connections=sum(lane.connections for lane in lanes),
        requests=sum(lane.requests for lane in lanes),
        errors=sum(lane.errors for lane in lanes),
        bytes_read=sum(lane.bytes_read for lane in lanes),
        bytes_written=sum(lane.bytes_written for lane in lanes),
        disk_errors=sum(lane.disk_errors for lane in lanes),
    )


def describe(name: str, export: Export) -> ExportInfo:
    """What the handshake says of an export. A flag only for what works ("Transmission flags")."""
    disk = export.disk
    flags = TransmissionFlag.HAS_FLAGS | TransmissionFlag.SEND_FLUSH | TransmissionFlag.SEND_FUA
    if export.read_only or disk.read_only:
        flags |= TransmissionFlag.READ_ONLY
    else:
        flags |= _WRITABLE
    if disk.shared_cache:
        # All connections are served by this process from this one disk object, so what a flush on
        # one of them has made stable includes what was written on all others.
        flags |= TransmissionFlag.CAN_MULTI_CONN
    sizes = (1, disk.preferred_block, MAX_PAYLOAD)
    return ExportInfo(name, disk.size, flags, export.description, sizes)


def tcp_uri(address: tuple[str, int], name: str) -> str:
    """How clients write it: nbd://host:port/name."""
    host, port = address
    if ":" in host:
        host = f"[{host}]"
    return f"nbd://{host}:{port}/{quote(name, safe='')}"


def unix_uri(path: str, name: str) -> str:
    """How clients write it: nbd+unix:///name?socket=path."""
    return (
        f"nbd+unix:///{quote(name, safe='')}?socket={quote(path.encode(errors='surrogateescape'))}"
    )
