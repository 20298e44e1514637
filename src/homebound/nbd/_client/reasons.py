"""Explanations of why connecting failed, with advice."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from .._protocol.errors import OptionRefused
from .._protocol.wire import Option, ReplyType

if TYPE_CHECKING:
    from .uri import Target

# OpenSSL's results of a check of a certificate.
_DATES = {
    9: "is not valid yet; compare the clocks of both machines",
    10: "has expired",
}
_UNKNOWN_AUTHORITY = {2, 18, 19, 20, 21}
_OTHER_NAME = {62, 64}
_NO_TLS = {ReplyType.ERR_UNSUP, ReplyType.ERR_POLICY}


def reason_of(target: Target, error: BaseException) -> str:
    """Return what was wrong, and advice where there is some."""
    if isinstance(error, OptionRefused):
        return _refusal(target, error)
    if isinstance(error, ssl.SSLError):
        return _tls_failure(target, error)
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    words = _words(target, error)
    if isinstance(error, ConnectionRefusedError):
        return f"no server listens there: {words}"
    if isinstance(error, FileNotFoundError) and target.path:
        return f"there is no socket {target.path!r}: {words}"
    return words


def _words(target: Target, error: BaseException) -> str:
    if isinstance(error, UnicodeError) and target.host:
        return f"{target.host!r} is no name of a host"
    return str(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def silent_end(target: Target) -> str:
    """Return why a server may disconnect as TLS begins, without a word."""
    if target.psk_file:
        why = "it may not know the user or the key"
    elif _shows_certificate(target):
        why = "it may not accept the client's certificate"
    else:
        why = f"it may want a client's certificate; {_give_certificate(target)}"
    return f"the server disconnected as TLS began: {why}"


def _refusal(target: Target, error: OptionRefused) -> str:
    if error.kind == ReplyType.ERR_TLS_REQD and not target.tls:
        return f"the server demands TLS (ERR_TLS_REQD); {_with_tls(target)}"
    if error.option == Option.STARTTLS and error.kind in _NO_TLS:
        return f"{error}; {_without_tls(target)}" if target.is_uri else str(error)
    return str(error)


def _wrong_certificate(target: Target, error: ssl.SSLCertVerificationError) -> str:
    code = error.verify_code
    if code in _DATES:
        return f"the server's certificate {_DATES[code]}"
    if code in _OTHER_NAME:
        name = target.hostname or target.host
        return (
            f"the server's certificate is for another name than {name!r}; "
            "if that is as it should be, write the name in it: tls-hostname=NAME"
        )
    if code in _UNKNOWN_AUTHORITY:
        return _unknown_authority(target, error.verify_message)
    return f"the server's certificate is not accepted: {error.verify_message}"


def _unknown_authority(target: Target, words: str) -> str:
    if target.context is not None:
        return f"no authority of the TLS context has signed the server's certificate: {words}"
    authority = Path(target.certificates, "ca-cert.pem")
    if target.certificates and authority.exists():
        who = f"neither {str(authority)!r} nor an authority of this system"
        return f"{who} has signed the server's certificate: {words}"
    return (
        f"no authority of this system has signed the server's certificate: {words}; "
        "write where the ca-cert.pem that has is: tls-certificates=DIRECTORY"
    )


def _tls_failure(target: Target, error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _wrong_certificate(target, error)
    reason = error.reason or ""
    words = reason.replace("_", " ").lower() or str(error)
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return silent_end(target)
    if "CERTIFICATE_REQUIRED" in reason:
        return f"the server demands a client's certificate; {_give_certificate(target)}"
    if "ALERT_UNKNOWN_CA" in reason or "ALERT_BAD_CERTIFICATE" in reason:
        return f"the server does not accept the client's certificate: {words}"
    advice = ""
    if target.psk_file:
        advice = "; the server may not know the user or the key"
    elif "HANDSHAKE_FAILURE" in reason and not _shows_certificate(target):
        advice = "; the server may use keys: tls-psk-file=FILE"
    return f"TLS failed: {words}{advice}"


def _shows_certificate(target: Target) -> bool:
    if target.context is not None:
        return True  # that is not known
    return bool(target.certificates) and Path(target.certificates, "client-cert.pem").exists()


def _give_certificate(target: Target) -> str:
    files = "client-cert.pem and client-key.pem"
    if target.certificates:
        return f"put {files} into {target.certificates!r}"
    return f"write where {files} are: tls-certificates=DIRECTORY"


def _with_tls(target: Target) -> str:
    if not target.is_uri:
        return "connect with a TLS context"
    return f"begin the URI with {'nbds+unix' if target.path else 'nbds'}://"


def _without_tls(target: Target) -> str:
    scheme = "nbd+unix" if target.path else "nbd"
    return f"where it need not be encrypted, begin the URI with {scheme}://"
