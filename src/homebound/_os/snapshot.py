"""Looking at what other threads change."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections import deque

T = TypeVar("T")
_TRIES = 1000


def snapshot(items: deque[T]) -> tuple[T, ...]:
    """What is in a deque now; () if it changes all the time.

    Without a GIL copying one is not atomic: it raises if another thread comes between. Lists, sets
    and dicts are copied under their own lock.
    """
    for _ in range(_TRIES):
        try:
            return tuple(items.copy())
        except RuntimeError:
            continue
    return ()
