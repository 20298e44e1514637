"""The state that the connections to one export share: its disk, the claims on it, its failures."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .faults import Faults, safe_repr
from .published import describe
from .ranges import Ranges, ranges_of
from .rounded import round_up

if TYPE_CHECKING:
    from ...block._disk import Disk
    from .._protocol.export import ExportInfo
    from .budget import Budget
    from .published import Export

_SIZES = range(1 << 63)  # of exports; clients take a larger one for an error


@dataclass(frozen=True, slots=True)
class Served:
    """One export and its shared state, for any number of threads."""

    info: ExportInfo
    disk: Disk
    ranges: Ranges
    faults: Faults
    budget: Budget  # the server's


def serve(
    name: str,
    export: Export,
    budget: Budget,
    round_size: int = 1,
    told: dict[object, object] | None = None,
) -> Served:
    """Make the shared state of an export; `round_size` is for an export without its own.

    `told` are the kinds of failures that were logged for it before. Raises TypeError or ValueError
    for a size that clients cannot be told.
    """
    _check_size(export.disk)
    disk = round_up(export.disk, round_size if export.round_size is None else export.round_size)
    _check_size(disk)
    info = describe(name, export, disk)
    return Served(info, disk, ranges_of(export.disk), Faults(name, export.disk, told), budget)


def _check_size(disk: Disk) -> None:
    try:
        size = operator.index(disk.size)
    except TypeError:
        text = f"the size of {safe_repr(disk)} must be an int; it is {disk.size!r}"
        raise TypeError(text) from None
    if size not in _SIZES:
        raise ValueError(f"the size of {safe_repr(disk)} is {size}; it must be 0 to 2**63 - 1")
