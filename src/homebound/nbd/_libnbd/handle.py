"""libnbd's NBD: all parts of a handle, and what it says of the library."""

from __future__ import annotations

from ... import __version__
from .commands import Commands

_PACKAGE = "homebound"


class NBD(Commands):
    """A handle: settings, then one connection, then requests.

    One thread at a time uses it; others wait for that.

    >>> from homebound.nbd import libnbd as nbd
    >>> nbd.NBD().get_tls() == nbd.TLS_DISABLE
    True

    Called from: any thread.
    """

    def supports_tls(self) -> bool:
        """Return True: TLS is Python's.

        Called from: any thread.
        """
        return True

    def supports_uri(self) -> bool:
        """Return True: URIs are understood.

        Called from: any thread.
        """
        return True

    def get_version(self) -> str:
        """Return the version of this package.

        Called from: any thread.
        """
        return __version__

    def get_package_name(self) -> str:
        """Return the name of this package.

        Called from: any thread.
        """
        return _PACKAGE
