"""Certificates for tests, made by openssl."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

NAMES = {"server": "/CN=localhost", "client": "/O=Tests/CN=a client"}
_EXTENSIONS = """\
subjectAltName=DNS:localhost,IP:127.0.0.1
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
"""
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def make_certificates(place: Path, *, days: int = 2) -> Path:
    """Make ca-cert.pem, and a certificate and key of a server and of a client."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    place.mkdir(exist_ok=True)
    authority, key = place / "ca-cert.pem", place / "ca-key.pem"
    usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    _openssl("req", "-x509", *_KEY, "-subj", "/CN=CA", *usage, "-keyout", key, "-out", authority)
    for name, subject in NAMES.items():
        request, extra = place / f"{name}.csr", place / f"{name}.ext"
        own, certificate = place / f"{name}-key.pem", place / f"{name}-cert.pem"
        extra.write_text(_EXTENSIONS)
        _openssl("req", *_KEY, "-subj", subject, "-keyout", own, "-out", request)
        signing = ("-CA", authority, "-CAkey", key, "-CAcreateserial", "-days", days)
        files = ("-in", request, "-out", certificate, "-extfile", extra)
        _openssl("x509", "-req", *signing, *files)
    return place


def _openssl(*arguments: object) -> None:
    command = ["openssl", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
