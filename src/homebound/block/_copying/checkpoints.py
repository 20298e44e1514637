"""Checkpoints: from time to time, what has been copied is flushed and noted in the state file."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ..._os.clock import monotonic
from .._to_end import to_end
from .state import save_state

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .engine import Copy
    from .state import CopyState

_SHORTEST = 0.25  # seconds between two checkpoints
_STABLE = 2.0  # seconds between two flushes without a state file
_SHARE = 10  # it takes at most about one part in ten of the time


class Checkpoints:
    """The checkpoints of a copy, in the file at `path`.

    Called from: home thread.
    """

    def __init__(self, copy: Copy, path: str, state: CopyState) -> None:
        self._copy = copy
        self._path = path
        self._state = state  # as the file has it, once `begin` has saved it

    async def begin(self) -> None:
        """Save the first state, so that a file that cannot be written is noticed now."""
        await to_end(partial(save_state, self._path, self._state))

    async def keep(self) -> None:
        """Save again and again, until cancelled. Raises CopyError or StateError."""
        await _repeat(self.save, _SHORTEST)

    async def save(self) -> None:
        """Flush what has been copied, and then save that. Raises CopyError or StateError."""
        if self._copy.done_until == self._state.done:
            return
        done = await self._copy.flush()
        if done == self._state.done:
            return
        state = replace(self._state, done=done)
        await to_end(partial(save_state, self._path, state))
        self._state = state


async def keep_stable(copy: Copy) -> None:
    """Flush what has been copied again and again, until cancelled. Raises CopyError.

    For a target whose connection may be lost: then no more than what was written since has to be
    copied again.
    """
    await _repeat(copy.flush, _STABLE)


async def _repeat(work: Callable[[], Awaitable[object]], shortest: float) -> None:
    pause = shortest
    while True:
        await asyncio.sleep(pause)
        began = monotonic()
        await work()
        pause = max(shortest, (monotonic() - began) * _SHARE)
