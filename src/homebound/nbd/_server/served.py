"""What the connections to one export share: its disk, the claims on it, its failures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .faults import Faults
from .published import describe
from .ranges import Ranges, ranges_of

if TYPE_CHECKING:
    from ...block._disk import Disk
    from .._protocol.export import ExportInfo
    from .published import Export


@dataclass(frozen=True, slots=True)
class Served:
    """One export as it is served, by any number of threads."""

    info: ExportInfo
    disk: Disk
    ranges: Ranges
    faults: Faults


def serve(name: str, export: Export) -> Served:
    """Make what its connections share."""
    disk = export.disk
    return Served(describe(name, export), disk, ranges_of(disk), Faults(name, disk))
