"""Unix signals in a loop, which shares the wakeup descriptor with the rest of the program.

A process has one wakeup descriptor (`signal.set_wakeup_fd`), to which the C-level handler writes
the number of each signal. The program may have set one: trio's, Twisted's, a debugger's. asyncio
replaces it for as long as a loop has a handler of `add_signal_handler`, and then removes its own
without putting the earlier one back.

A homebound loop sets its own in two cases. What is written to that is passed on to the descriptor
that it replaced, which is put back as soon as the loop's is not needed:

* while the loop has signal handlers, as with asyncio
* in a long sleep. A Python-level handler runs between two bytecodes: a signal that comes after
  the last of them, and before the system call, would be handled only when the sleep ends by itself.
  In a short sleep that does no harm. The program's code does not run in this time (except signal
  handlers), so it does not see the loop's descriptor.

Only a thread that runs Python's signal handlers may set it: the main thread of the main
interpreter. `threading` may name another thread the main one; trying to set it then shows that.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading

# The function in `signal` makes an enum member of what it returns.
from _signal import getsignal  # type: ignore[import-not-found]
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import selectors
    import socket
    from collections.abc import Callable

_CLOSED = -2  # a number that is neither a descriptor nor -1, which stands for none
SHORT = 0.05  # seconds: the longest sleep in which a signal may have to wait
_MOST = 4096  # bytes taken from the socket at a time
_set_quietly = partial(signal.set_wakeup_fd, warn_on_full_buffer=False)


def _set(fd: int) -> int:
    """Make `fd` the wakeup descriptor, or none if that is refused; return the earlier one.

    It is refused if it is closed, or blocks. Raises ValueError in a thread that may not set any.
    """
    try:
        return _set_quietly(fd)
    except (OSError, ValueError):
        return _set_quietly(-1)


def runs_signal_handlers() -> bool:
    """Return whether the calling thread runs signal handlers; a wrong True is soon found out."""
    if threading.current_thread() is threading.main_thread():
        return True
    try:
        # This changes nothing: it fails, but checks the calling thread first.
        signal.signal(signal.SIGKILL, signal.SIG_DFL)
    except ValueError:
        return False
    except OSError:
        pass
    return True


class _Owner:
    """A descriptor of the program's that the loop's has replaced; or none.

    The program may close it, and its number may then belong to another file, to which no signal
    numbers must be written. Before the first look, only that it blocks may show that: a wakeup
    descriptor does not.
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
            if os.get_blocking(self.fd):
                return None
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def is_there(self) -> bool:
        return self._file is not None and self._look() == self._file

    def come_back(self) -> int:
        """Make it the wakeup descriptor again; return the one before that."""
        return _set(self.fd if self.is_there() else -1)

    def hear(self, numbers: bytes) -> None:
        """Pass on the signal numbers that were written to the loop's descriptor."""
        if self.is_there():
            try:
                os.write(self.fd, numbers)
            except OSError:
                pass  # it is full, which the C-level handler ignores as well


_NONE = _Owner(-1)


class HearingLoop(asyncio.SelectorEventLoop):
    """asyncio's selector loop, which shares the wakeup descriptor. Home only."""

    # asyncio's socket pair: the C-level handler writes to `_csock`, the loop reads from `_ssock`;
    # None once closed. And its handlers, by signal number.
    _ssock: socket.socket | None
    _csock: socket.socket | None
    _signal_handlers: dict[int, Any]

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        super().__init__(selector)
        # Whether the home thread runs signal handlers; written by that thread.
        self._heeds = False
        # While the loop's descriptor is set for a sleep: the earlier one. Written by the call that
        # sets it.
        self._lenders: list[int] = []
        self._lender = _NONE  # the last of them
        # While the loop's descriptor is set for signal handlers: the earlier one.
        self._owner = _NONE

    def hear_here(self) -> None:
        """Note whether the calling thread, the new home, runs signal handlers."""
        self._heeds = runs_signal_handlers()

    def interrupted_task(self) -> Any:
        """Return the main task of an asyncio.Runner here, if Ctrl-C has cancelled it; else None.

        It stays so until the run ends, though the task may have gone on since.

        Called from: the home, or its stand-in.
        """
        if not self._heeds:
            return None
        handler = getsignal(signal.SIGINT)
        if type(handler) is not partial:
            return None
        runner = getattr(handler.func, "__self__", None)
        if not getattr(runner, "_interrupt_count", 0) or not isinstance(runner, asyncio.Runner):
            return None
        return handler.keywords.get("main_task")

    def _ours(self) -> int:
        return _CLOSED if self._csock is None else self._csock.fileno()

    # A long sleep.

    def _sleep_long(self, look: Callable[..., Any], timeout: float | None, *args: Any) -> Any:
        """Call `look(timeout, *args)`, which a signal ends at whatever moment it comes.

        This costs as much as a sleep that another thread ends at once: look for SHORT before.
        """
        try:
            self._listen_no_more()
            self._listen()
            return look(timeout, *args)
        finally:
            self._listen_no_more()

    def _listen(self) -> None:
        try:
            # One C call: a signal handler that raises after it does not lose the earlier one.
            self._lenders.extend(map(_set_quietly, (self._ours(),)))
        except ValueError:
            self._heeds = False
        else:
            self._lender = _Owner(self._lenders[-1])

    def _listen_no_more(self) -> None:
        """Put the earlier descriptor back, if that has not been done.

        Called again later if a signal handler has raised in here.
        """
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
        """Read and return what was written to the loop's descriptor."""
        if self._ssock is None:
            return b""
        try:
            return self._ssock.recv(_MOST)
        except BlockingIOError:
            return b""

    # While there are signal handlers.

    def _process_self_data(self, data: bytes) -> None:
        """Do as asyncio's, for data written to the loop's descriptor, and pass the data on."""
        super()._process_self_data(data)  # type: ignore[misc]
        self._owner.hear(data)

    def add_signal_handler(  # type: ignore[override]
        self, sig: int, callback: Callable[..., object], *args: Any
    ) -> None:
        """Do as asyncio's; the wakeup descriptor that it replaces still gets the signals."""
        ours = self._ours()
        try:
            before = None if ours == _CLOSED else _set(ours)
        except ValueError:  # not in this thread: asyncio raises for that
            before = None
        if before is not None and before != ours:
            self._owner = _Owner(before)
        try:
            super().add_signal_handler(sig, callback, *args)
        finally:
            if before is not None and not self._signal_handlers:
                self._give_back()

    def remove_signal_handler(self, sig: int) -> bool:
        """Do as asyncio's; after the last handler, the earlier wakeup descriptor is put back."""
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
            if before != ours:  # the program has set another since, or the earlier one is back
                _set(before)
            elif not self._signal_handlers:
                self._give_back()

    def _give_back(self) -> None:
        owner, self._owner = self._owner, _NONE
        owner.come_back()

    # The end.

    def _hear_no_more(self) -> None:
        """Put the earlier descriptor back before asyncio closes the loop's.

        asyncio removes the handlers only after that.
        """
        if not self._signal_handlers:
            return
        owner, self._owner = self._owner, _NONE
        try:
            before = owner.come_back()
        except ValueError:
            return  # not in this thread: asyncio raises for that
        if before != self._ours():  # the program has set another since
            _set(before)
        owner.hear(self._take_numbers())

    def _hear_nothing(self) -> None:
        """Listen to no signals in a forked process, as they are not for this loop."""
        self._signal_handlers.clear()
        self._lenders.clear()
        self._owner = _NONE
        try:
            now = _set(-1)
        except ValueError:
            return  # forked by a subinterpreter
        if now not in (-1, self._ours()):
            _set(now)
