"""TLS contexts of a client, from a context of the caller's or from the files that a URI names."""

from __future__ import annotations

import errno
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._pem import FileError, check_directory, load_authority, load_pair
from .uri import URIError

if TYPE_CHECKING:
    from .uri import Target


def context_for(target: Target) -> ssl.SSLContext:
    """Return the context that the connection to `target` begins TLS with. Reads files."""
    if target.context is not None:
        return target.context
    if target.psk_file:
        return _psk_context(target)
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not target.verify or not server_name(target):
        context.check_hostname = False
    if not target.verify:
        context.verify_mode = ssl.CERT_NONE
    if target.certificates:
        _load_files(context, Path(target.certificates))
    return context


def _load_files(context: ssl.SSLContext, directory: Path) -> None:
    """Load the files in a directory. Raises FileError, which says what is wrong there."""
    check_directory(directory)
    authority, certificate = directory / "ca-cert.pem", directory / "client-cert.pem"
    if not authority.exists() and not certificate.exists():
        text = f"{str(directory)!r} has neither ca-cert.pem nor client-cert.pem"
        raise FileError(errno.ENOENT, text)
    if authority.exists():
        load_authority(context, authority)
    if certificate.exists():
        load_pair(context, certificate, directory / "client-key.pem")


def server_name(target: Target) -> str | None:
    """Return the name that the server's certificate must have; None if any will do."""
    return target.hostname or target.host or None


def _psk_context(target: Target) -> ssl.SSLContext:
    if not hasattr(ssl.SSLContext, "set_psk_client_callback"):
        raise URIError("tls-psk-file needs Python 3.13 or later")
    identity, key = _psk(target)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("PSK")
    # Typeshed has it from 3.13 on, and we are checked for 3.11.
    set_callback: Any = context.set_psk_client_callback  # type: ignore[attr-defined]
    set_callback(lambda _hint: (identity, key))
    return context


def _psk(target: Target) -> tuple[str, bytes]:
    """Return the identity and the key: those of the user the URI names, else the first."""
    try:
        text = Path(target.psk_file).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        words = f"{target.psk_file!r}: {error.strerror or error}"
        raise FileError(error.errno or errno.EIO, words) from error
    for line in text.splitlines():
        identity, colon, key = line.strip().rpartition(":")
        if colon and not identity.startswith("#") and target.username in ("", identity):
            try:
                return identity, bytes.fromhex(key)
            except ValueError:
                continue
    user = f" for {target.username!r}" if target.username else ""
    raise URIError(f"{target.psk_file!r} has no line user:key{user}, the key in hexadecimal")
