"""Exports that are looked up as a client asks for them. No disk and no waiting in here.

The handshake stops at an option that needs a lookup, with the event `Wanted`. Its caller looks up,
records the result here and calls `next_event` again, which then answers the option.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import NBDError
from .export import decode_name
from .options import error_reply
from .wire import LENGTH, Option, ReplyType

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .export import ExportInfo

# Options whose data begins with the length of a name, and the name.
_NAMED = frozenset({Option.INFO, Option.GO, Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT})


@dataclass(frozen=True, slots=True)
class Wanted:
    """Look up the export `name`, or all of them if it is None; then the negotiation goes on."""

    name: str | None

    @property
    def data(self) -> bytes:
        """Nothing to send: every event has data."""
        return b""


class SearchError(NBDError):
    """A lookup that failed; the text is for the client's user."""

    def reply(self, option: int) -> bytes:
        """Pack the error reply to an option; NBD_OPT_EXPORT_NAME has none."""
        if option == Option.EXPORT_NAME:
            return b""
        return error_reply(option, ReplyType.ERR_PLATFORM, str(self))


class Lookups:
    """The last lookup for one client, and the last listing. Used by one thread.

    It takes the place of an ExportTable. A new lookup replaces the last one: a client that asks for
    thousands of names must not make the server keep them.
    """

    __slots__ = ("_found", "_listed", "_name")

    def __init__(self) -> None:
        self._name: str | None = None
        self._found: ExportInfo | SearchError | None = None
        self._listed: Sequence[ExportInfo] | SearchError | None = None

    def wanted(self, option: int, data: bytes) -> Wanted | None:
        """Return the lookup that an option needs, None if it can be answered.

        Called from: any thread.
        """
        if option == Option.LIST and not data:
            return Wanted(None) if self._listed is None else None
        name = _name_in(option, data)
        return None if name is None or name == self._name else Wanted(name)

    def add(self, name: str, found: ExportInfo | SearchError | None) -> None:
        """Record the result of a lookup; None: there is no such export.

        Called from: any thread.
        """
        self._name, self._found = name, found

    def add_list(self, listed: Sequence[ExportInfo] | SearchError) -> None:
        """Record a listing, which answers one option.

        Called from: any thread.
        """
        self._listed = listed

    def find(self, name: str) -> ExportInfo | None:
        """Return the export of that name, which was looked up, or None. Raises SearchError.

        Called from: any thread.
        """
        if name != self._name:
            return None
        if isinstance(self._found, SearchError):
            raise self._found
        return self._found

    def __iter__(self) -> Iterator[ExportInfo]:
        listed, self._listed = self._listed, None
        if isinstance(listed, SearchError):
            raise listed
        return iter(listed or ())


def _name_in(option: int, data: bytes) -> str | None:
    """Return the name of an export in an option's data; None if there is no valid one."""
    if option == Option.EXPORT_NAME:
        return decode_name(data)
    if option not in _NAMED or len(data) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack_from(data)
    if LENGTH.size + length > len(data):
        return None
    return decode_name(data[LENGTH.size : LENGTH.size + length])
