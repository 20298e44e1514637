"""Reports of exceptions that reach the end of a thread's own code."""

from __future__ import annotations

import logging
import threading

_logger = logging.getLogger("homebound")


def report(error: BaseException, what: str) -> None:
    """Pass an exception to threading.excepthook, and log SystemExit, which Python's own hook drops.

    `what` says where it was raised, and what follows from it. Called from: any thread.
    """
    log_exit(error, what)
    args = (type(error), error, error.__traceback__, threading.current_thread())
    threading.excepthook(threading.ExceptHookArgs(args))


def report_and_go_on(error: BaseException, what: str) -> None:
    """Do as `report`, and log what the hook, which may be the program's own, raises itself.

    Called from: any thread.
    """
    try:
        report(error, what)
    except BaseException:
        _logger.exception("threading.excepthook failed, as it was to report %r in %s", error, what)


def log_exit(error: BaseException, what: str) -> None:
    """Log SystemExit. Called from: any thread."""
    if isinstance(error, SystemExit):
        _logger.error("%r in %s", error, what, exc_info=error)
