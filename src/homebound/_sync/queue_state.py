"""The state of a Queue by asyncio's names, and its repr."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._os.snapshot import snapshot

if TYPE_CHECKING:
    from .queue_ends import Getters, Slots, Unfinished
    from .waiters import Waiter


class ShownQueue:
    """The part of a Queue that is only read.

    The waiters are copies: code written for asyncio may add futures to a queue's own.
    """

    __slots__ = ()

    _getters_queue: Getters
    _is_shutdown: bool
    _maxsize: int
    _name: str | None
    _queue: Any
    _slots: Slots | None
    _unfinished: Unfinished

    @property
    def _getters(self) -> tuple[Waiter, ...]:
        return snapshot(self._getters_queue._waiters)

    @property
    def _putters(self) -> tuple[Waiter, ...]:
        return () if self._slots is None else snapshot(self._slots._waiters)

    @property
    def _unfinished_tasks(self) -> int:
        return len(self._unfinished)

    def _format(self) -> str:
        result = f"maxsize={self._maxsize!r}"
        if self._queue:
            result += f" _queue={list(self._queue)!r}"
        if self._getters:
            result += f" _getters[{len(self._getters)}]"
        if self._putters:
            result += f" _putters[{len(self._putters)}]"
        if self._unfinished:
            result += f" tasks={len(self._unfinished)}"
        if self._is_shutdown:
            result += " shutdown"
        return result

    def __repr__(self) -> str:
        where = f"at {id(self):#x}" if self._name is None else repr(self._name)
        return f"<{type(self).__name__} {where} {self._format()}>"

    def __str__(self) -> str:
        return f"<{type(self).__name__} {self._format()}>"
