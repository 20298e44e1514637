"""Consistent copies of collections that other threads change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections import deque
    from weakref import WeakSet

T = TypeVar("T")
_TRIES = 1000


def snapshot(items: deque[T]) -> tuple[T, ...]:
    """Return a copy of a deque; () if it never stops changing.

    On a free-threaded build copying a deque is not atomic: it raises if another thread changes the
    deque meanwhile. Lists, sets and dicts are copied under their own lock.
    """
    for _ in range(_TRIES):
        try:
            return tuple(items)  # not items.copy(): 33 us an entry on free-threaded Python 3.13
        except RuntimeError:
            continue
    return ()


def members(weak: WeakSet[T]) -> list[T]:
    """Return what is in a WeakSet: copying its set is one operation, iterating it is not."""
    references: set[Any] = weak.data.copy()  # type: ignore[attr-defined]
    return [member for reference in references if (member := reference()) is not None]
