"""Metadata contexts: what a client may learn about an export beside its data.

This server has one, `base:allocation`, which tells holes and zeroes ("Metadata querying").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .export import decode_name
from .wire import LENGTH

if TYPE_CHECKING:
    from collections.abc import Sequence

ALLOCATION = "base:allocation"
OFFERED = {ALLOCATION: 1}  # the contexts, and the ids that replies to BLOCK_STATUS use


def parse_request(data: bytes) -> tuple[str, list[str]] | None:
    """Return the export's name and the queries of LIST or SET; None if they are not valid."""
    parts: list[str] = []
    at = 0
    name, at = _string(data, at)
    if name is None or at + LENGTH.size > len(data):
        return None
    (count,) = LENGTH.unpack_from(data, at)
    at += LENGTH.size
    if count > (len(data) - at) // LENGTH.size:
        return None
    for _ in range(count):
        query, at = _string(data, at)
        if query is None:
            return None
        parts.append(query)
    return (name, parts) if at == len(data) else None


def _string(data: bytes, at: int) -> tuple[str | None, int]:
    """Return the string that begins with its length at `at`, and where it ends."""
    if at + LENGTH.size > len(data):
        return None, at
    (length,) = LENGTH.unpack_from(data, at)
    start = at + LENGTH.size
    end = start + length
    return (decode_name(data[start:end]) if end <= len(data) else None), end


def listed(queries: Sequence[str]) -> frozenset[str]:
    """Return the contexts that LIST names: all without a query; `base:` is a wildcard."""
    if not queries or "base:" in queries:
        return frozenset(OFFERED)
    return selected(queries)


def selected(queries: Sequence[str]) -> frozenset[str]:
    """Return the contexts that SET selects. What this server does not know selects nothing."""
    return frozenset(OFFERED.keys() & set(queries))
