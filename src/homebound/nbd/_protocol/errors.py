"""The exceptions of `homebound.nbd`."""

from __future__ import annotations


class NBDError(Exception):
    """The base class of the errors of this package."""


class LocalProtocolError(NBDError):
    """A violation of the protocol by this program, not by the peer: a bug here."""


class RemoteProtocolError(NBDError):
    """A violation of the protocol by the peer that leaves no way to go on; disconnect."""


class ExportNameError(NBDError, ValueError):
    """An export name that the protocol cannot carry, or a duplicate one."""


class ListenError(NBDError):
    """A failure to listen on an address; the text says why."""


class AddressInUse(ListenError):
    """A failure to listen on an address because another socket is listening on it."""
