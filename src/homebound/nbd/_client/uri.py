"""NBD URIs, as the NBD project's document on them says."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

from .._protocol.export import check_string

if TYPE_CHECKING:
    import socket
    import ssl

DEFAULT_PORT = 10809
_SCHEMES = ("nbd", "nbds", "nbd+unix", "nbds+unix")
_URI = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class URIError(ValueError):
    """A text that is no NBD URI, or one that this client cannot follow."""


@dataclass(frozen=True, slots=True)
class Target:
    """The address of a server, and the export and encryption to ask it for."""

    label: str  # for messages
    export: str = ""
    host: str = ""
    port: int = DEFAULT_PORT
    path: str = ""  # of a unix socket, if that is what it is
    sock: socket.socket | None = None  # connected by the caller
    tls: bool = False
    context: ssl.SSLContext | None = None  # None: made of the following
    certificates: str = ""  # a directory
    psk_file: str = ""
    hostname: str = ""  # that the certificate must have, if it is not `host`
    username: str = ""  # of the PSK
    verify: bool = True

    @property
    def is_uri(self) -> bool:
        """True if `label` is a URI."""
        return _URI.match(self.label) is not None

    @property
    def can_repeat(self) -> bool:
        """True if there can be another connection after the first."""
        return self.sock is None

    def with_export(self, name: str) -> Target:
        """Return the same server with another export."""
        check_string(name, "export name")
        return replace(self, export=name)


def parse_uri(uri: str) -> Target:
    """Return what an NBD URI says. Raises URIError, which says what is wrong."""
    if not _URI.match(uri):
        raise URIError(_no_uri(uri))
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError as error:
        raise URIError(f"{uri!r} is no URI: {error}") from error
    scheme = parts.scheme.lower()
    if scheme not in _SCHEMES:
        known = ", ".join(f"{each}://" for each in _SCHEMES)
        raise URIError(f"{uri!r}: {scheme}:// is not one of {known}")
    query = {key: values[-1] for key, values in _query(parts.query).items()}
    path = query.get("socket", "")
    _check_place(uri, scheme, parts.hostname, path)
    target = Target(
        label=uri,
        host="" if path else parts.hostname or "localhost",
        port=DEFAULT_PORT if port is None else port,
        path=path,
        tls=scheme.startswith("nbds"),
        certificates=query.get("tls-certificates", ""),
        psk_file=query.get("tls-psk-file", ""),
        hostname=query.get("tls-hostname", ""),
        username=unquote(parts.username or query.get("tls-username", "")),
        verify=query.get("tls-verify-peer", "true").lower() not in ("false", "0", "no"),
    )
    try:
        return target.with_export(unquote(parts.path.removeprefix("/"), errors="strict"))
    except ValueError as error:
        raise URIError(f"{uri!r}: {error}") from error


def _query(text: str) -> dict[str, list[str]]:
    """Return the query's parts. Paths may have bytes that are no UTF-8, as for the system."""
    return parse_qs(text, keep_blank_values=True, errors="surrogateescape")


def _check_place(uri: str, scheme: str, hostname: str | None, path: str) -> None:
    unix = scheme.endswith("+unix")
    if unix and not path:
        raise URIError(f"{uri!r} names no socket; write {scheme}:///EXPORT?socket=PATH")
    if unix and hostname:
        raise URIError(f"{uri!r} has both a host and a unix socket; write {scheme}:///EXPORT?...")
    if path and not unix:
        raise URIError(f"{uri!r} has a unix socket; write {scheme}+unix:///EXPORT?socket=PATH")


def _no_uri(text: str) -> str:
    if text.startswith("nbd:unix:"):
        path, _, export = text.removeprefix("nbd:unix:").partition(":exportname=")
        return f"{text!r} is QEMU's own form; write nbd+unix:///{export}?socket={path}"
    if re.match(r"nbd:[^/]", text):
        place, _, export = text.removeprefix("nbd:").partition(":exportname=")
        return f"{text!r} is QEMU's own form; write nbd://{place}/{export}"
    return f"{text!r} is no NBD URI; write nbd://HOST/EXPORT or nbd+unix:///EXPORT?socket=PATH"
