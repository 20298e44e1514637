"""The exceptions of `homebound.nbd`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .wire import Option, ReplyType

if TYPE_CHECKING:
    from enum import IntEnum


class NBDError(Exception):
    """The base class of the errors of this package."""


class LocalProtocolError(NBDError):
    """A violation of the protocol by this program, not by the peer: a bug here."""


class RemoteProtocolError(NBDError):
    """A violation of the protocol by the peer that leaves no way to go on; disconnect."""


class OptionRefused(NBDError):
    """An error reply to an option; `kind` is its type, `text` what the server says."""

    def __init__(self, option: int, kind: int, text: str) -> None:
        name, why = _name(Option, option), _name(ReplyType, kind)
        super().__init__(f"the server refuses {name}: {why}{': ' if text else ''}{text}")
        self.option: int = option
        self.kind: int = kind
        self.text: str = text


class ExportNameError(NBDError, ValueError):
    """An export name that the protocol cannot carry, or a duplicate one."""


class ListenError(NBDError):
    """A failure to listen on an address; the text says why."""


class AddressInUse(ListenError):
    """A failure to listen on an address because another socket is listening on it."""


def _name(kind: type[IntEnum], number: int) -> str:
    try:
        return kind(number).name
    except ValueError:
        return f"{number:#x}"
