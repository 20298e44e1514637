"""The states of a handle, by the names that libnbd has for them."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """The states of a handle."""

    START = "START"  # it has not connected
    NEGOTIATING = "NEGOTIATING"
    READY = "READY"
    CLOSED = "CLOSED"
    DEAD = "DEAD"
