"""Numbered turns: the order in which tasks and threads of a test do their parts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..._os.guard import new_guard
from ..._sync.event import Event

if TYPE_CHECKING:
    from types import TracebackType


class SequenceBroken(RuntimeError):  # noqa: N818  (as asyncio.BrokenBarrierError: a state, told)
    """A party of a Sequencer has died, so the turns after it do not come.

    Called from: any thread.
    """


class Sequencer:
    """A fixed order of turns, 0, then 1, then 2, whichever party arrives first.

    Use `async with seq(n):` in a task of any loop and `with seq.sync(n):` in a thread; a home's
    loop keeps running in the latter. The body of turn n runs when that of turn n - 1 has ended. A
    number is used once, or RuntimeError is raised. A party that is cancelled, or raises in its
    turn, breaks the sequence: the parties that wait or arrive later get SequenceBroken. A party
    whose turn does not come within `timeout` seconds (None: no limit) gets TimeoutError, and breaks
    the sequence for the others.

    >>> import asyncio, homebound
    >>> from homebound.testing import Sequencer
    >>> async def main():
    ...     seq, said = Sequencer(), []
    ...     async def say(number, word):
    ...         async with seq(number):
    ...             said.append(word)
    ...     await asyncio.gather(say(2, "three"), say(0, "one"), say(1, "two"))
    ...     return said
    >>> homebound.run(main())
    ['one', 'two', 'three']

    Called from: any thread.
    """

    def __init__(self, *, timeout: float | None = 10.0) -> None:
        self._timeout = timeout
        self._guard = new_guard()  # for the fields below; no waiter is woken under it
        self._turn = 0  # the number of the running, or next, turn
        self._waiting: dict[int, Event] = {}  # the parties whose turn has not come
        self._used: set[int] = set()
        self._broken: str | None = None  # why; set once

    def __call__(self, number: int) -> Turn:
        """Turn `number`, for `async with`.

        Called from: task.
        """
        return Turn(self, number)

    def sync(self, number: int) -> SyncTurn:
        """Turn `number`, for `with` in a thread.

        Called from: any thread.
        """
        return SyncTurn(self, number)

    def _join(self, number: int) -> Event:
        """Queue up for a turn; the event is set when it comes, or never will."""
        if number < 0:
            message = f"Sequencer: there is no turn {number}; they are numbered from 0"
            raise ValueError(message)
        with self._guard:
            if number in self._used:
                message = f"Sequencer: turn {number} was used before; give each party its own"
                raise RuntimeError(message)
            self._used.add(number)
            come = self._waiting[number] = Event()
            now = number == self._turn or self._broken is not None
        if now:
            come.set()
        return come

    def _begin(self, number: int) -> None:
        """Its event is set."""
        with self._guard:
            self._waiting.pop(number, None)
            if self._broken is not None:
                message = f"Sequencer: turn {number} does not come: {self._broken}"
                raise SequenceBroken(message)

    def _end(self, number: int, error: BaseException | None) -> None:
        """Its body has ended."""
        if error is not None:
            self._break(f"turn {number} died in its turn: {error!r}")
            return
        with self._guard:
            self._turn = number + 1
            come = self._waiting.get(self._turn)
        if come is not None:
            come.set()

    def _give_up(self, number: int, error: BaseException) -> None:
        """Take a party out of the wait. Raises the error to raise instead of its own, if any."""
        with self._guard:
            turn = self._turn
            others = sorted(set(self._waiting) - {number})
        late = isinstance(error, TimeoutError)
        why = "was not willing to wait longer" if late else f"died waiting: {error!r}"
        self._break(f"turn {number} {why}")
        if late:
            state = "goes on" if turn in self._used else "was never taken"
            message = (
                f"Sequencer: turn {number} has not come in {self._timeout} s: turn {turn} {state}"
                f"{f', {others} wait as well' if others else ''}"
            )
            raise TimeoutError(message) from None

    def _break(self, why: str) -> None:
        with self._guard:
            self._broken = self._broken or why
            told = list(self._waiting.values())
        for come in told:
            come.set()

    def __repr__(self) -> str:
        with self._guard:
            waiting = sorted(self._waiting)
            state = self._broken or f"turn {self._turn}"
        return f"<Sequencer, {state}, waiting: {waiting}>"


class _Numbered:
    __slots__ = ("_number", "_sequencer")

    def __init__(self, sequencer: Sequencer, number: int) -> None:
        self._sequencer = sequencer
        self._number = number


class Turn(_Numbered):
    """A turn for `async with`, made by `Sequencer(n)`."""

    __slots__ = ()

    async def __aenter__(self) -> None:
        sequencer, number = self._sequencer, self._number
        come = sequencer._join(number)
        try:
            async with asyncio.timeout(sequencer._timeout):
                await come.wait()
        except BaseException as error:
            sequencer._give_up(number, error)
            raise
        sequencer._begin(number)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._sequencer._end(self._number, error)


class SyncTurn(_Numbered):
    """A turn for `with`, made by `Sequencer.sync(n)`."""

    __slots__ = ()

    def __enter__(self) -> None:
        sequencer, number = self._sequencer, self._number
        come = sequencer._join(number)
        try:
            if not come.wait_sync(sequencer._timeout):
                raise TimeoutError  # noqa: TRY301  (one place gives up)
        except BaseException as error:
            sequencer._give_up(number, error)
            raise
        sequencer._begin(number)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._sequencer._end(self._number, error)
