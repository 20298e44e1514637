"""Refusing to copy or pickle an object whose copy would share half of its state.

A class whose objects are not to be copied has one of these as its `__reduce__`.
"""

from __future__ import annotations

from typing import NoReturn


def refuse_copy(what: object) -> NoReturn:
    """Raise TypeError, as the object is to be shared or made anew.

    Called from: any thread.
    """
    name = type(what).__name__
    message = f"cannot copy or pickle {name!r} object: share it, or make another {name}"
    raise TypeError(message)


def refuse_threaded_copy(what: object) -> NoReturn:
    """Raise TypeError, as the object has threads, or a loop.

    Called from: any thread.
    """
    message = (
        f"cannot copy or pickle {type(what).__name__!r} object: threads share it, and another "
        "process makes one of its own"
    )
    raise TypeError(message)
