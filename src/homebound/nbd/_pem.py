"""Certificates and keys from PEM files, for TLS contexts; errors name the file and its fault."""

from __future__ import annotations

import errno
import os
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_CERTIFICATE = "-----BEGIN CERTIFICATE-----"
_PRIVATE_KEY = "PRIVATE KEY-----"


class FileError(OSError):
    """A missing or wrong file; `strerror` names it."""


def check_directory(directory: Path) -> None:
    """Raise FileError unless it is a directory."""
    if not directory.exists():
        text = f"there is no directory {str(directory)!r}: {os.strerror(errno.ENOENT)}"
        raise FileError(errno.ENOENT, text)
    if not directory.is_dir():
        raise FileError(errno.ENOTDIR, f"{str(directory)!r} is not a directory")


def load_authority(context: ssl.SSLContext, path: Path) -> None:
    """Have the context trust the certificates in a file. Raises FileError, which names it."""
    text = _read(path)
    _check_certificates(path, text)
    context.load_verify_locations(path)


def load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Give the context a certificate and its key. Raises FileError, which names the wrong file."""
    text, key_text = _read(certificate), _read(key)
    _check_certificates(certificate, text)
    if _PRIVATE_KEY not in key_text:
        raise _fault(key, "has no private key in PEM format")

    def refuse() -> str:
        raise _fault(key, "needs a passphrase; write the key without one: openssl pkey -in ...")

    try:
        context.load_cert_chain(certificate, key, refuse)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            fault = f"is not the key of the certificate in {str(certificate)!r}"
        elif error.reason in _WEAK:
            raise _fault(certificate, f"is refused: {_reason(error)}") from error
        else:
            fault = f"has a private key that cannot be read: {_reason(error)}"
        raise _fault(key, fault) from error


_WEAK = {"EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        number = error.errno or errno.EIO
        raise FileError(number, f"{str(path)!r}: {error.strerror or error}") from error


def _check_certificates(path: Path, text: str) -> None:
    if _CERTIFICATE not in text:
        raise _fault(path, "has no certificate in PEM format")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(os.fspath(path))
    except ssl.SSLError as error:
        raise _fault(path, f"has a damaged certificate: {_reason(error)}") from error


def _reason(error: ssl.SSLError) -> str:
    """Return OpenSSL's words: `bad end line` for `[PEM: BAD_END_LINE] bad end line (_ssl.c:1)`."""
    return (error.reason or "no reason is known").replace("_", " ").lower()


def _fault(path: Path, words: str) -> FileError:
    return FileError(errno.EINVAL, f"{str(path)!r} {words}")
