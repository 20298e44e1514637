"""A field of a `threading.local` that a finaliser may read while it is being made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class FirstLook(Generic[T]):
    """A field of a `threading.local`, made by the first look of each thread.

    A finaliser may come in meanwhile and look, too; then both have the same object. A field that
    `__init__` makes would not be there yet.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make

    def __set_name__(self, _owner: type, name: str) -> None:
        self._name = name

    def __get__(self, local: object, _owner: type) -> T:
        return vars(local).setdefault(self._name, self._make())  # type: ignore[no-any-return]
