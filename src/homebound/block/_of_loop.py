"""An object that each loop has one of, found in the thread that runs the loop."""

from __future__ import annotations

import asyncio
import threading
import weakref
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class OfLoop(threading.local, Generic[T]):
    """An object for each loop; each thread keeps that of the loop that ran last in it."""

    def __init__(self, make: Callable[[asyncio.AbstractEventLoop], T]) -> None:
        self._make = make
        self._loop: weakref.ref[asyncio.AbstractEventLoop] | None = None
        self._made: T

    def here(self) -> T:
        """Return that of the running loop."""
        loop = asyncio.get_running_loop()
        if self._loop is None or self._loop() is not loop:
            self._made = self._make(loop)
            self._loop = weakref.ref(loop)  # last: the other is this loop's
        return self._made
