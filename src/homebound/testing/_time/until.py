"""For plain threads: waiting for what nobody announces."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..._os.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable

_PAUSE = 0.0002  # seconds between two looks


def until(predicate: Callable[[], object], *, patience: float = 20.0) -> None:
    """Wait in this thread until `predicate()` is true; it is asked again and again.

    For what other threads are about to do and nobody tells; where somebody does, wait for that, and
    for contexts to be idle there is `settle`. Raises AssertionError after `patience` seconds.

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
