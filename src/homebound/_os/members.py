"""What is in a WeakSet, whatever other threads do to it meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from weakref import WeakSet

T = TypeVar("T")


def members(weak: WeakSet[T]) -> list[T]:
    """Those that are in there now: copying the set is one operation, iterating a WeakSet is not."""
    references: set[Any] = weak.data.copy()  # type: ignore[attr-defined]
    return [member for reference in references if (member := reference()) is not None]
