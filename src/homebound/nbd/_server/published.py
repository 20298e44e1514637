"""The server's public records: exports, URIs and counters."""

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
    from collections.abc import Callable, Iterable

    from .lane import Lane

_ALWAYS = (
    TransmissionFlag.HAS_FLAGS
    | TransmissionFlag.SEND_FLUSH
    | TransmissionFlag.SEND_FUA
    | TransmissionFlag.SEND_CACHE
)
_WRITABLE = TransmissionFlag.SEND_TRIM | TransmissionFlag.SEND_WRITE_ZEROES


@dataclass(frozen=True, slots=True)
class Export:
    """A disk and the options of its export: a `description` for people; `read_only` forbids writes.

    Its size is rounded up to a multiple of `round_size` (None: the server's), for clients that
    transfer whole blocks only, of a disk that ends within one. The padding reads as zeroes, and
    zeroes may be written there; any other write there fails with ENOSPC.

    `on_close` is for exports that are found for one connection (see `Exports`): it is called in a
    worker when the connection has ended, in place of a flush and `disk.close`, for a disk that
    others use too.

    Raises TypeError for a `disk` that is not a Disk and a `description` that is not a str, and
    ValueError for a `round_size` below 1.

    >>> from homebound.block import MemoryDisk
    >>> from homebound.nbd import Export, NBDServer
    >>> disk = MemoryDisk(1 << 20)
    >>> server = NBDServer({"spare": Export(disk, "nothing on it yet", read_only=True)})

    Called from: any thread.
    """

    disk: Disk
    description: str = ""
    read_only: bool = False
    round_size: int | None = None
    on_close: Callable[[], object] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.disk, Disk):
            raise TypeError(f"an Export takes a Disk; {_instead(self.disk)}")
        if not isinstance(self.description, str):
            kind = _a_type(self.description)
            raise TypeError(f"description must be a str; {self.description!r} is {kind}")
        if self.round_size is not None:
            check_number("round_size", self.round_size, 1)


@dataclass(frozen=True, slots=True)
class ServerStats:
    """Counters of a server, since it was made; sizes in bytes.

    The I/O threads go on while the counters are read, so the values may be of slightly different
    moments.
    """

    clients: int  # connected now
    connections: int  # ever
    requests: int
    errors: int  # error replies
    bytes_read: int  # by clients
    bytes_written: int
    disk_errors: int = 0  # those of `errors` that a disk raised


def publish(exports: object) -> dict[str, Export]:
    """Check the `exports` of a server, and return them by name.

    Raises TypeError for any other type.
    """
    if isinstance(exports, (Disk, Export)):
        exports = {"": exports}
    if not isinstance(exports, Mapping):
        takes = (
            "NBDServer takes a Disk, an Export, or a mapping of names to those, or an object with "
            "`async def find(name, client)`"
        )
        raise TypeError(f"{takes}; {_instead(exports)}")
    published = {}
    for name, export in exports.items():
        if not isinstance(name, str):
            raise TypeError(f"the name of an export must be a str; {name!r} is {_a_type(name)}")
        if not isinstance(export, (Disk, Export)):
            raise TypeError(f"export {name!r} must be a Disk or an Export; {_instead(export)}")
        published[name] = Export(export) if isinstance(export, Disk) else export
    return published


def as_export(name: str, found: object) -> Export:
    """Return the export that a search has found. Raises TypeError for anything else."""
    if isinstance(found, Disk):
        return Export(found)
    if not isinstance(found, Export):
        text = f"find({name!r}) must return a Disk, an Export or None"
        raise TypeError(f"{text}; it returned {found!r}")
    return found


def check_number(what: str, number: object, least: int) -> None:
    """Raise TypeError or ValueError unless `number` is an int of at least `least`."""
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"{what} must be an int; {number!r} is {_a_type(number)}")
    if number < least:
        raise ValueError(f"{what} is {number}; it must be at least {least}")


def check_seconds(what: str, seconds: object) -> None:
    """Raise TypeError or ValueError unless `seconds` is a number of at least 0."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{what} must be a number of seconds; {seconds!r} is {_a_type(seconds)}")
    if not seconds >= 0:  # so that NaN is none, too
        raise ValueError(f"{what} is {seconds}; it must be at least 0")


def _instead(given: object) -> str:
    """Describe a wrong argument, and the right one."""
    if isinstance(given, (str, bytes, os.PathLike)):
        return f"to serve an image, open it: FileDisk({os.fspath(given)!r})"
    return f"{given!r} is {_a_type(given)}"


def _a_type(thing: object) -> str:
    name = type(thing).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def add_up(lanes: Iterable[Lane]) -> ServerStats:
    """Add up the counters of all lanes."""
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
    """Describe an export to the handshake; `disk` is the export's, or that rounded up.

    Only flags whose commands work are set ("Transmission flags").
    """
    flags = _ALWAYS
    if export.read_only or disk.read_only:
        flags |= TransmissionFlag.READ_ONLY
    else:
        flags |= _WRITABLE
        if disk.can_fast_zero:
            flags |= TransmissionFlag.SEND_FAST_ZERO
    if disk.shared_cache:
        # This process serves all connections from this one disk object, so a flush on one of them
        # includes the writes of all others.
        flags |= TransmissionFlag.CAN_MULTI_CONN
    flags &= ~_lacking(disk)
    if disk.rotational:
        flags |= TransmissionFlag.ROTATIONAL
    return ExportInfo(name, disk.size, flags, export.description, _block_sizes(disk))


def _block_sizes(disk: Disk) -> tuple[int, int, int]:
    """Return the minimum, the preferred size and the largest payload, as NBD allows them."""
    largest = MAX_PAYLOAD
    if disk.maximum_transfer is not None:
        largest = min(largest, disk.maximum_transfer)
    minimum = disk.minimum_block
    return minimum, max(disk.preferred_block, minimum), largest


def _lacking(disk: Disk) -> int:
    """Return the flags of commands that the disk has no use for."""
    lacking = 0 if disk.can_flush else TransmissionFlag.SEND_FLUSH
    lacking |= 0 if disk.can_fua else TransmissionFlag.SEND_FUA
    lacking |= 0 if disk.can_trim else TransmissionFlag.SEND_TRIM
    return lacking


def tcp_uri(address: tuple[str, int], name: str) -> str:
    """Return the URI nbd://host:port/name."""
    host, port = address
    if ":" in host:
        host = f"[{host}]"
    return f"nbd://{host}:{port}/{quote(name, safe='')}"


def unix_uri(path: str, name: str) -> str:
    """Return the URI nbd+unix:///name?socket=path."""
    return (
        f"nbd+unix:///{quote(name, safe='')}?socket={quote(path.encode(errors='surrogateescape'))}"
    )
