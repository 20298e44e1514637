"""NBD URIs: what each part means, and what is refused in words."""

from __future__ import annotations

import os

import pytest

from homebound.nbd import URIError
from homebound.nbd._client.uri import parse_uri


@pytest.mark.parametrize(
    ("uri", "host", "port", "export"),
    [
        ("nbd://example.com", "example.com", 10809, ""),
        ("nbd://example.com/", "example.com", 10809, ""),
        ("nbd://example.com/disk", "example.com", 10809, "disk"),
        ("nbd://example.com//disk", "example.com", 10809, "/disk"),
        ("nbd://example.com:1/a/b", "example.com", 1, "a/b"),
        ("nbd://[::1]:2/x", "::1", 2, "x"),
        ("nbd://", "localhost", 10809, ""),
        ("nbd:///x", "localhost", 10809, "x"),
        ("NBD://h/%C3%B6%2F", "h", 10809, "ö/"),
    ],
)
def test_over_tcp(uri: str, host: str, port: int, export: str):
    target = parse_uri(uri)
    assert (target.host, target.port, target.export) == (host, port, export)
    assert not target.path
    assert not target.tls
    assert target.label == uri


@pytest.mark.parametrize(
    ("uri", "path", "export"),
    [
        ("nbd+unix:///?socket=/run/s", "/run/s", ""),
        ("nbd+unix:///disk?socket=/run/s", "/run/s", "disk"),
        ("nbd+unix:////disk?socket=s", "s", "/disk"),
        ("nbd+unix://?socket=%2Fa%20b", "/a b", ""),
    ],
)
def test_over_a_unix_socket(uri: str, path: str, export: str):
    target = parse_uri(uri)
    assert (target.path, target.export, target.host) == (path, export, "")


def test_a_path_that_is_not_utf_8():
    assert os.fsencode(parse_uri("nbd+unix:///x?socket=/%FF/s").path) == b"/\xff/s"


def test_with_tls():
    target = parse_uri("nbds://u@h/x?tls-certificates=/c&tls-hostname=n&tls-verify-peer=false")
    assert target.tls
    assert (target.username, target.certificates, target.hostname) == ("u", "/c", "n")
    assert not target.verify
    target = parse_uri("nbds+unix://alice@/x?socket=/s&tls-psk-file=/keys")
    assert (target.tls, target.path, target.psk_file) == (True, "/s", "/keys")
    assert target.username == "alice"


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("nbd:localhost:10809", "QEMU's own form; write nbd://localhost:10809/"),
        ("nbd:localhost:10809:exportname=x", "write nbd://localhost:10809/x"),
        ("nbd:unix:/s:exportname=x", "write nbd+unix:///x?socket=/s"),
        ("raw.img", "is no NBD URI; write nbd://"),
        ("http://x/", "http:// is not one of nbd://"),
        ("nbd+vsock://1/x", "is not one of nbd://"),
        ("nbd+unix:///x", "names no socket"),
        ("nbd+unix://host/x?socket=/s", "both a host and a unix socket"),
        ("nbd://host/x?socket=/s", "write nbd+unix:///"),
        ("nbd://host:port/", "is no URI"),
        ("nbd://host:99999/", "is no URI"),
        ("nbd://[::1/", "is no URI"),
        ("nbd://h/%00", "NUL"),
        ("nbd://h/" + "x" * 5000, "NBD allows 4096"),
        ("nbd://h/%ff", "nbd://h/%ff"),
    ],
)
def test_refused(uri: str, text: str):
    with pytest.raises(URIError) as caught:
        parse_uri(uri)
    assert text in str(caught.value)
