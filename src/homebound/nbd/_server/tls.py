"""TLS of a server: whether it is required, and contexts from files."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._pem import check_directory, load_authority, load_pair
from .._protocol.handshake import Tls

PSK_CIPHERS = "PSK"


@dataclass(frozen=True, slots=True)
class Encryption:
    """A server's TLS: its context, and whether clients must use it. Never changes."""

    context: ssl.SSLContext
    required: bool

    @property
    def policy(self) -> Tls:
        """The handshake's policy: TLS is required, or offered."""
        return Tls.REQUIRED if self.required else Tls.OFFERED


def encryption(context: object, *, required: bool) -> Encryption | None:
    """Return the TLS of a server, or None without a context. Raises TypeError, ValueError."""
    if context is None:
        if required:
            raise ValueError("tls_required needs a context: pass tls=an ssl.SSLContext")
        return None
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"tls takes an ssl.SSLContext for servers, not {context!r}")
    if context.protocol is ssl.PROTOCOL_TLS_CLIENT:
        raise ValueError("tls takes a context for servers; this one is for clients")
    return Encryption(context, required)


def certificate_context(directory: str, *, verify_peer: bool) -> ssl.SSLContext:
    """Return a context from server-cert.pem and server-key.pem in a directory. Reads files.

    With `verify_peer`, clients need a certificate that ca-cert.pem has signed. Raises OSError,
    which names the file that is missing or wrong.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    place = Path(directory)
    check_directory(place)
    load_pair(context, place / "server-cert.pem", place / "server-key.pem")
    if verify_peer:
        load_authority(context, place / "ca-cert.pem")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def psk_context(path: str) -> ssl.SSLContext:
    """Return a context for the pre-shared keys of a file with lines `user:hexadecimal key`.

    Raises NotImplementedError before Python 3.13, OSError or ValueError for a file that is wrong.
    """
    if not hasattr(ssl.SSLContext, "set_psk_server_callback"):
        raise NotImplementedError("pre-shared keys need Python 3.13 or later")
    keys = read_keys(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # Python's callback is for the key exchange of TLS 1.2.
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(PSK_CIPHERS)
    # Typeshed has it from 3.13 on, and we are checked for 3.11.
    set_callback: Any = context.set_psk_server_callback  # type: ignore[attr-defined]
    # An unknown user has an empty key, with which no handshake succeeds.
    set_callback(lambda user: keys.get(user or "", b""))
    return context


def read_keys(path: str) -> dict[str, bytes]:
    """Return the keys by user. Raises OSError; ValueError for a line that is not one."""
    keys: dict[str, bytes] = {}
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        user, colon, key = text.rpartition(":")
        try:
            keys[user] = bytes.fromhex(key)
        except ValueError:
            keys[user] = b""
        if not (user and colon and keys[user]):
            raise ValueError(f"{path!r}, line {number}: it is not user:key, the key hexadecimal")
    if not keys:
        raise ValueError(f"{path!r} has no key")
    return keys
