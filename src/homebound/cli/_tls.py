"""The TLS options of `homebound serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..nbd._server.tls import certificate_context, psk_context
from ._errors import ServeError

if TYPE_CHECKING:
    import ssl


def tls_context(
    certificates: str | None, psk: str | None, *, verify_peer: bool, required: bool
) -> ssl.SSLContext | None:
    """Return the context that the options name, None without one. Raises UsageError, ServeError."""
    if certificates is not None and psk is not None:
        raise click.UsageError("--tls-certificates and --tls-psk are two kinds of keys; choose one")
    if verify_peer and certificates is None:
        raise click.UsageError("--tls-verify-peer needs --tls-certificates")
    if certificates is None and psk is None:
        if required:
            raise click.UsageError("--tls-required needs --tls-certificates or --tls-psk")
        return None
    try:
        if certificates is not None:
            return certificate_context(certificates, verify_peer=verify_peer)
        return psk_context(psk or "")
    except NotImplementedError as error:
        raise ServeError(f"--tls-psk: {error}") from error
    except OSError as error:
        where = f"{error.filename!r}: " if error.filename is not None else ""
        raise ServeError(f"cannot use TLS: {where}{error.strerror or error}") from error
    except ValueError as error:
        raise ServeError(f"cannot use TLS: {error}") from error
