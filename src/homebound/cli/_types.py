"""The parameter types of the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..block._names import parse_size
from ._disks import check_image
from ._places import check_disk, check_place
from ._sizes import parse_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    _Type = click.ParamType[Any]
else:  # click 8.1's takes no type
    _Type = click.ParamType


class Parsed(_Type):
    """The type of an argument that `parse` converts; `parse` raises ValueError for a wrong one."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse the argument. Raises UsageError if it cannot be parsed."""
        if not isinstance(value, str):
            return value  # parsed already
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def not_empty(text: str) -> str:
    """Return `text` unchanged, surrogate escapes too. Raises ValueError if it is empty."""
    if not text:
        raise ValueError("it is empty")
    return text


PATH = Parsed("path", not_empty)
HOST = Parsed("host", not_empty)
COMMAND = Parsed("command", not_empty)
TEXT = Parsed("name", not_empty)
PLACE = Parsed("disk", check_place)
DISK = Parsed("disk", check_disk)
SPEC = Parsed("image", check_image)
SIZE = Parsed("size", parse_size)
SECONDS = Parsed("seconds", parse_seconds)
