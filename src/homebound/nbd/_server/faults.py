"""The failures of one export's disk: each kind is logged once; the lanes count all."""

from __future__ import annotations

import errno
import logging
import threading
from typing import TYPE_CHECKING

from ...block._scripts.errors import ScriptError
from .._protocol.wire import Command

if TYPE_CHECKING:
    import asyncio

    from ...block._disk import Disk

logger = logging.getLogger("homebound.nbd")


class Faults:
    """The kinds of failures logged for one export. Used by all threads that serve it."""

    __slots__ = ("_disk", "_name", "_told")

    def __init__(self, name: str, disk: Disk, told: dict[object, object] | None = None) -> None:
        self._name = name
        self._disk = disk
        # By kind of failure. Threads share it through its atomic setdefault: the thread whose value
        # is stored logs the failure.
        self._told: dict[object, object] = {} if told is None else told

    def tell(self, failure: BaseException, command: int, loop: asyncio.AbstractEventLoop) -> None:
        """Log an OSError once per errno; report anything else once per type and command.

        Called from: home thread.
        """
        expected = isinstance(failure, OSError)
        kind: object = errno_of(failure) if expected else (type(failure), command)
        if isinstance(failure, ScriptError):  # its text says where in the script
            kind = failure.kind, command
        token = object()
        if self._told.setdefault(kind, token) is not token:
            return
        disk, doing = safe_repr(self._disk), _doing(command)
        if expected:
            logger.warning(
                "export %r: %s failed to %s: %s; its other errors of that kind are only counted",
                self._name,
                disk,
                doing,
                _words(failure),
            )
            return
        message = f"{disk} raised an exception that is not an OSError; the client got EIO"
        loop.call_exception_handler({"message": message, "exception": failure})


def errno_of(failure: BaseException) -> int | None:
    """Return the errno of an OSError; None if a disk has set it to anything but an int."""
    number = failure.errno if isinstance(failure, OSError) else None
    return number if isinstance(number, int) else None


def pass_on_interrupt(failure: BaseException, loop: asyncio.AbstractEventLoop) -> None:
    """Raise a KeyboardInterrupt in the main thread again, from the loop: it may be Ctrl-C."""
    if isinstance(failure, KeyboardInterrupt) and (
        threading.current_thread() is threading.main_thread()
    ):
        loop.call_soon(_raise, failure)


def _raise(failure: BaseException) -> None:
    raise failure


def safe_repr(disk: object) -> str:
    """Return the repr of a user's object, or the default one if its own raises."""
    try:
        return repr(disk)
    except Exception:  # noqa: BLE001  (it must not hide the failure being logged)
        return object.__repr__(disk)


def _doing(command: int) -> str:
    try:
        return Command(command).name.lower().replace("_", " ")
    except ValueError:
        return f"carry out command {command}"


def _words(failure: BaseException) -> str:
    number = errno_of(failure)
    name = "an error without errno" if number is None else errno.errorcode.get(number, str(number))
    try:
        return f"{name}, {failure}"
    except Exception:  # noqa: BLE001  (a user's class)
        return name
