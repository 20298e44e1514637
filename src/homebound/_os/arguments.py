"""Arguments that are refused with words, where Python's own would not say what to write instead."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")


def hides_more(function: F) -> F:
    """Leave `*more`, which a function takes only to refuse it, out of the signature that it shows.

    Called from: any thread.
    """
    signature = inspect.signature(function)
    kept = [each for each in signature.parameters.values() if each.name != "more"]
    function.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
    return function


def checked_name(what: object, name: object) -> str:
    """Return a name; TypeError for what is no str.

    Called from: any thread.
    """
    if not isinstance(name, str):
        message = f"{type(what).__name__}: the name is {name!r}; it must be a str"
        raise TypeError(message)
    return name
