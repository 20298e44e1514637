"""Requests to a disk that is a script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import homebound

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


def do(operation: Callable[..., Coroutine[Any, Any, T]], *arguments: Any, **options: Any) -> T:
    """Carry out a request in a loop of its own."""
    return homebound.run(operation(*arguments, **options))
