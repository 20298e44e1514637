"""The failures of one export's disk: told once of each kind, and counted by the lanes."""

from __future__ import annotations

import errno
import logging
import threading
from typing import TYPE_CHECKING

from .._protocol.wire import Command

if TYPE_CHECKING:
    import asyncio

    from ...block._disk import Disk

logger = logging.getLogger("homebound.nbd")


class Faults:
    """What was told of one export. Used by all threads that serve it."""

    __slots__ = ("_disk", "_name", "_told")

    def __init__(self, name: str, disk: Disk) -> None:
        self._name = name
        self._disk = disk
        # Kinds of failures. Threads share it by its own atomic setdefault: the one whose value is
        # found there tells.
        self._told: dict[object, object] = {}

    def tell(self, failure: BaseException, command: int, loop: asyncio.AbstractEventLoop) -> None:
        """Log an OSError once per errno; report anything else once per type and command.

        Called from: home thread.
        """
        expected = isinstance(failure, OSError)
        kind = errno_of(failure) if expected else (type(failure), command)
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
        message = f"{disk} raised something that is no OSError; the client was told EIO"
        loop.call_exception_handler({"message": message, "exception": failure})


def errno_of(failure: BaseException) -> int | None:
    """The errno of an OSError; None where a disk has put something else there."""
    number = failure.errno if isinstance(failure, OSError) else None
    return number if isinstance(number, int) else None


def pass_on_interrupt(failure: BaseException, loop: asyncio.AbstractEventLoop) -> None:
    """Raise it again, from the loop, if it may be Ctrl-C: only the main thread is told of that."""
    if isinstance(failure, KeyboardInterrupt) and (
        threading.current_thread() is threading.main_thread()
    ):
        loop.call_soon(_raise, failure)


def _raise(failure: BaseException) -> None:
    raise failure


def safe_repr(disk: Disk) -> str:
    """Name a disk in a report, even one whose own __repr__ fails."""
    try:
        return repr(disk)
    except Exception:  # noqa: BLE001  (the report is about another failure, and has to be made)
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
