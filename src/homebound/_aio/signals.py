"""How a loop hears Unix signals, in a program that may listen to them as well.

A process has one wakeup descriptor (`signal.set_wakeup_fd`), to which the C-level handler writes
the number of each signal. It may be the program's own: trio's, Twisted's, a debugger's. asyncio
takes it for as long as a loop has a handler of `add_signal_handler`, and forgets whose it was.

Here it is ours in two cases. What is written then goes on to the descriptor whose place it took,
which has it back as soon as ours is not needed:

* while the loop has signal handlers, as with asyncio
* in a long sleep. A Python-level handler runs between two bytecodes: a signal that comes after
  the last of them, and before the system call, would be heeded when the sleep ends by itself. In a
  short sleep that does no harm. So nothing of the program runs while the descriptor is ours for
  this (but for signal handlers), and nothing of it sees ours.

Only a thread that runs Python's signal handlers may set it: the main thread of the main
interpreter. `threading` may take another for that; then we learn it by trying.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import selectors
    import socket
    from collections.abc import Callable

_CLOSED = -2  # as no descriptor is, nor none
SHORT = 0.05  # seconds for which a signal may go unheeded
_MOST = 4096  # bytes taken from the socket at a time
_set_quietly = partial(signal.set_wakeup_fd, warn_on_full_buffer=False)


def _set(fd: int) -> int:
    """Make it the wakeup descriptor; which was it before. A closed one is replaced by none."""
    try:
        return _set_quietly(fd)
    except OSError:
        return _set_quietly(-1)


def runs_signal_handlers() -> bool:
    """Whether the calling thread is the one that runs them; or seems to be, which is soon known."""
    if threading.current_thread() is threading.main_thread():
        return True
    try:
        # Nothing is changed by that: which thread we are is looked at first.
        signal.signal(signal.SIGKILL, signal.SIG_DFL)
    except ValueError:
        return False
    except OSError:
        pass
    return True


class _Owner:
    """A descriptor of the program's whose place ours has taken; or none.

    The program may close it meanwhile, and the number may then be that of another file, in which
    nobody wants to find signals.
    """

    __slots__ = ("_file", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._file = self._look()

    def _look(self) -> tuple[int, int] | None:
        if self.fd == -1:
            return None
        try:
            status = os.fstat(self.fd)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def is_there(self) -> bool:
        return self._file is not None and self._look() == self._file

    def come_back(self) -> int:
        """Make it the wakeup descriptor again; which was it before."""
        return _set(self.fd if self.is_there() else -1)

    def hear(self, numbers: bytes) -> None:
        """What was written to ours."""
        if self.is_there():
            try:
                os.write(self.fd, numbers)
            except OSError:
                pass  # it is full, as it may be for the C-level handler


_NONE = _Owner(-1)


class HearingLoop(asyncio.SelectorEventLoop):
    """asyncio's selector loop, which shares the wakeup descriptor. Home only."""

    # asyncio's: the end from which it reads what the C-level handler writes to the other; None once
    # it is closed. Its handlers, by signal number.
    _ssock: socket.socket | None
    _csock: socket.socket | None
    _signal_handlers: dict[int, Any]

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        super().__init__(selector)
        # Whether the thread that lives here runs signal handlers; written by it.
        self._heeds = False
        # While ours is set for a sleep: which it was before. Written by the call that sets it.
        self._lenders: list[int] = []
        self._lender = _NONE  # the last of them
        # While ours is set for signal handlers: the same.
        self._owner = _NONE

    def hear_here(self) -> None:
        """Note whether the calling thread, which lives here now, runs signal handlers."""
        self._heeds = runs_signal_handlers()

    def _ours(self) -> int:
        return _CLOSED if self._csock is None else self._csock.fileno()

    # A long sleep.

    def _sleep_long(self, look: Callable[..., Any], timeout: float | None, *args: Any) -> Any:
        """`look(timeout, *args)`; a signal ends it, whenever it comes.

        It costs as much as a sleep from which others wake us at once: look for SHORT before.
        """
        try:
            self._listen_no_more()
            self._listen()
            return look(timeout, *args)
        finally:
            self._listen_no_more()

    def _listen(self) -> None:
        try:
            # One call: if a signal handler raises after it, the lender is known all the same.
            self._lenders.extend(map(_set_quietly, (self._ours(),)))
        except ValueError:
            self._heeds = False
        else:
            self._lender = _Owner(self._lenders[-1])

    def _listen_no_more(self) -> None:
        """Give it back; also later, if a signal handler has raised in here. No-op if it is."""
        if not self._lenders:
            return
        ours = self._ours()
        lender = self._lender
        if lender.fd != self._lenders[-1]:
            lender = _Owner(self._lenders[-1])
        if lender.fd != ours:
            now = lender.come_back()
            if now != ours:  # a signal handler has set another meanwhile
                _set(now)
            if lender.fd != -1:
                numbers = self._take_numbers()
                super()._process_self_data(numbers)  # type: ignore[misc]
                lender.hear(numbers)
        self._lenders.clear()
        self._lender = _NONE

    def _take_numbers(self) -> bytes:
        """What is written to ours and not read yet."""
        if self._ssock is None:
            return b""
        try:
            return self._ssock.recv(_MOST)
        except BlockingIOError:
            return b""

    # While there are signal handlers.

    def _process_self_data(self, data: bytes) -> None:
        """asyncio's: data was written to our descriptor."""
        super()._process_self_data(data)  # type: ignore[misc]
        self._owner.hear(data)

    def add_signal_handler(  # type: ignore[override]
        self, sig: int, callback: Callable[..., object], *args: Any
    ) -> None:
        """asyncio's; the wakeup descriptor whose place ours takes goes on hearing."""
        ours = self._ours()
        try:
            before = None if ours == _CLOSED else _set(ours)
        except ValueError:  # not in this thread: asyncio says so
            before = None
        if before is not None and before != ours:
            self._owner = _Owner(before)
        try:
            super().add_signal_handler(sig, callback, *args)
        finally:
            if before is not None and not self._signal_handlers:
                self._give_back()

    def remove_signal_handler(self, sig: int) -> bool:
        """asyncio's; after the last one the wakeup descriptor is the one that was there before."""
        if sig not in self._signal_handlers:
            return super().remove_signal_handler(sig)
        ours = self._ours()
        try:
            before = _set(-1 if ours == _CLOSED else ours)
        except ValueError:
            return super().remove_signal_handler(sig)
        try:
            return super().remove_signal_handler(sig)
        finally:
            if before != ours:  # the program has set its own since, or has it back
                _set(before)
            elif not self._signal_handlers:
                self._give_back()

    def _give_back(self) -> None:
        owner, self._owner = self._owner, _NONE
        owner.come_back()

    # The end.

    def _hear_no_more(self) -> None:
        """asyncio is about to close our descriptor, and only then removes the handlers."""
        if not self._signal_handlers:
            return
        owner, self._owner = self._owner, _NONE
        try:
            before = owner.come_back()
        except ValueError:
            return  # not in this thread: asyncio says so
        if before != self._ours():  # the program has set its own since
            _set(before)
        owner.hear(self._take_numbers())

    def _hear_nothing(self) -> None:
        """In a forked process, whose signals are none of this loop's. Called from: the child."""
        self._signal_handlers.clear()
        self._lenders.clear()
        self._owner = _NONE
        try:
            now = _set(-1)
        except ValueError:
            return  # forked by a subinterpreter
        if now not in (-1, self._ours()):
            _set(now)
