"""Refusing to copy or pickle an object whose copy would share half of its state."""

from __future__ import annotations


def no_copy(what: object) -> TypeError:
    """Return the error of copying or pickling it.

    Called from: any thread.
    """
    name = type(what).__name__
    return TypeError(f"cannot copy or pickle {name!r} object: share it, or make another {name}")


def of_this_process(what: object) -> TypeError:
    """Return the error of copying or pickling an object that has threads, or a loop.

    Called from: any thread.
    """
    name = type(what).__name__
    return TypeError(
        f"cannot copy or pickle {name!r} object: threads share it, and another process makes one "
        "of its own"
    )
