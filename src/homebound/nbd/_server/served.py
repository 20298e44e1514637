"""The state that the connections to one export share: its disk, the claims on it, its failures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .faults import Faults
from .published import describe
from .ranges import Ranges, ranges_of
from .rounded import round_up

if TYPE_CHECKING:
    from ...block._disk import Disk
    from .._protocol.export import ExportInfo
    from .budget import Budget
    from .published import Export


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

    `told` are the kinds of failures that were logged for it before.
    """
    disk = round_up(export.disk, round_size if export.round_size is None else export.round_size)
    info = describe(name, export, disk)
    return Served(info, disk, ranges_of(export.disk), Faults(name, export.disk, told), budget)
