"""What a server says about itself: its exports, its addresses, its counters."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from ...block._disk import Disk
from .._protocol.export import ExportInfo
from .._protocol.wire import MAX_PAYLOAD, TransmissionFlag

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .lane import Lane

_WRITABLE = TransmissionFlag.SEND_TRIM | TransmissionFlag.SEND_WRITE_ZEROES


@dataclass(frozen=True, slots=True)
class Export:
    """A disk and how it is offered: `description` is for people, `read_only` forbids changes.

    Its size is rounded up to a multiple of `round_size`, if None of the server's: for clients that
    ask for whole blocks of a disk that ends within one. What is past its end reads as zeroes, and
    zeroes may be written there; anything else is refused with ENOSPC.

    Raises TypeError for what is no disk, and ValueError for a `round_size` that is not positive.

    >>> from homebound.block import MemoryDisk
    >>> from homebound.nbd import Export, NBDServer
    >>> disk = MemoryDisk(1 << 20)
    >>> server = NBDServer({"spare": Export(disk, "nothing on it yet", read_only=True)})
    """

    disk: Disk
    description: str = ""
    read_only: bool = False
    round_size: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.disk, Disk):
            raise TypeError(f"an Export is made of a Disk; {_instead(self.disk)}")
        if self.round_size is not None:
            check_number("round_size", self.round_size, 1)


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


def publish(exports: object) -> dict[str, Export]:
    """Check what a server was given, and have it by name.

    Raises TypeError, saying what is taken, for anything else.
    """
    if isinstance(exports, (Disk, Export)):
        exports = {"": exports}
    if not isinstance(exports, Mapping):
        takes = "NBDServer takes a Disk, an Export, or a mapping of names to those"
        raise TypeError(f"{takes}; {_instead(exports)}")
    published = {}
    for name, export in exports.items():
        if not isinstance(name, str):
            raise TypeError(f"the name of an export is a str; {name!r} is {_a_type(name)}")
        if not isinstance(export, (Disk, Export)):
            raise TypeError(f"export {name!r} has to be a Disk or an Export; {_instead(export)}")
        published[name] = Export(export) if isinstance(export, Disk) else export
    return published


def check_number(what: str, number: object, least: int) -> None:
    """Refuse anything but a whole number that is large enough."""
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"{what} is a whole number; {number!r} is {_a_type(number)}")
    if number < least:
        raise ValueError(f"{what} is {number}; it has to be at least {least}")


def _instead(given: object) -> str:
    """Say what was given, and what to do about it."""
    if isinstance(given, (str, bytes, os.PathLike)):
        return f"to serve an image, open it: FileDisk({os.fspath(given)!r})"
    return f"{given!r} is {_a_type(given)}"


def _a_type(thing: object) -> str:
    name = type(thing).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


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


def describe(name: str, export: Export, disk: Disk) -> ExportInfo:
    """What the handshake says of an export, whose disk may have been rounded up.

    A flag only for what works ("Transmission flags").
    """
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
