"""until: a plain thread's wait for a condition that nothing announces."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..._os.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable

_PAUSE = 0.0002  # seconds between two looks


def until(predicate: Callable[[], object], *, patience: float = 20.0) -> None:
    """Wait in this thread until `predicate()` is true, calling it again and again.

    It is meant for what another thread is about to do without an event to wait for; to wait for
    idle contexts there is `settle`. Raises AssertionError after `patience` seconds.

    >>> import threading
    >>> from homebound.testing import until
    >>> seen = []
    >>> threading.Thread(target=seen.append, args=[1]).start()
    >>> until(lambda: seen)

    Called from: any thread.
    """
    deadline = monotonic() + patience
    while not predicate():
        if monotonic() > deadline:
            raise AssertionError(f"until: {predicate} is not true after {patience} s")
        time.sleep(_PAUSE)
