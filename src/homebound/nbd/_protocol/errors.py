"""What goes wrong in NBD, by name."""

from __future__ import annotations


class NBDError(Exception):
    """Something about NBD went wrong; every error of this package is one."""


class LocalProtocolError(NBDError):
    """This program, not the peer, drove the protocol out of step: a bug on our side."""


class RemoteProtocolError(NBDError):
    """The peer broke the protocol in a way that leaves no common ground; hang up."""


class ExportNameError(NBDError, ValueError):
    """A name that the protocol cannot carry, or that is given twice."""


class ListenError(NBDError):
    """The server cannot listen there; the text says why."""


class AddressInUse(ListenError):
    """Somebody else is listening there."""
