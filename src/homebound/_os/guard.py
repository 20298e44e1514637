"""The lock that `with` takes in this package: re-entrant, and never left locked by an exception.

Such an exception is a signal handler's, or is thrown into the thread.
"""

from __future__ import annotations

import _thread
import sys
from typing import Any

if sys.version_info[:2] == (3, 14):

    class _Guard(_thread.RLock):
        """An RLock that `with` takes in one step.

        3.14 calls `__enter__` as any function: it looks for signals afterwards, and a handler that
        raises then leaves the lock locked. It looks for none after reading an attribute, nor after
        a function in Python has returned.
        """

        _taken = property(_thread.RLock.acquire)

        def __enter__(self) -> bool:
            self._taken  # noqa: B018  (reading it takes the lock)
            return True

    def new_guard() -> Any:
        """Return a lock that knows its thread. Called from: any thread."""
        return _Guard()
else:

    def new_guard() -> Any:
        """Return a lock that knows its thread. Called from: any thread."""
        return _thread.RLock()
