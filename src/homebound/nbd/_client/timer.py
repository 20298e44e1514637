"""A call that a home's loop makes later, if it is still wanted then."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class Timer:
    """Calls `act` at the time it was last started for. True while it is going to. Home only."""

    __slots__ = ("_act", "_handle")

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act
        self._handle: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        return self._handle is not None

    def start(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        """Have the call made at `when`, and not at the time set before."""
        self.cancel()
        self._handle = loop.call_at(when, self._fire)

    def cancel(self) -> None:
        """Have no call made."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        self._handle = None
        self._act()
