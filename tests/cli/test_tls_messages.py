"""What clients say when TLS does not come about: which file or certificate, and what to do."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from .conftest import Served
from .programs import fail, inside

if TYPE_CHECKING:
    from pathlib import Path

Serve = Callable[..., Served]

pytestmark = pytest.mark.peers

UNIX = "nbds+unix:///?socket="


@pytest.fixture
def socket(serve: Serve, image: Path, certificates: Path, tmp_path: Path) -> Path:
    """The socket of a server that demands TLS."""
    place = tmp_path / "nbd.sock"
    served = serve(
        image, "--unix", place, "--tls-certificates", certificates, "--tls-required", "--no-lock"
    )
    assert served.uri
    return place


@pytest.fixture
def place(tmp_path: Path, certificates: Path) -> Path:
    """A client's directory, with the authority of the server and the client's own files."""
    directory = tmp_path / "client"
    directory.mkdir()
    for name in ("ca-cert.pem", "client-cert.pem", "client-key.pem"):
        shutil.copy(certificates / name, directory)
    return directory


def refusal(socket: Path, query: str = "") -> str:
    """Return why `info` cannot connect."""
    uri = f"{UNIX}{socket}{query}"
    return fail("info", uri).removeprefix(f"homebound: cannot connect to {uri}: ")


def refusal_with(socket: Path, place: Path) -> str:
    return refusal(socket, f"&tls-certificates={place}")


def test_a_server_that_demands_tls(socket: Path):
    text = fail("info", f"nbd+unix:///?socket={socket}")
    assert text.endswith("demands TLS (ERR_TLS_REQD); begin the URI with nbds+unix://")


def test_a_server_without_tls(serve: Serve, image: Path):
    served = serve(image, "--port", "0")
    text = fail("info", served.uri.replace("nbd:", "nbds:"))
    assert "refuses STARTTLS: ERR_UNSUP" in text
    assert text.endswith("where it need not be encrypted, begin the URI with nbd://")


def test_a_directory_without_what_is_needed(socket: Path, tmp_path: Path):
    missing = f"there is no directory '{tmp_path}/none': {os.strerror(errno.ENOENT)}"
    assert refusal_with(socket, tmp_path / "none") == missing
    file = tmp_path / "file"
    file.touch()
    assert refusal_with(socket, file) == f"'{file}' is not a directory"
    empty = tmp_path / "empty"
    empty.mkdir()
    neither = f"'{empty}' has neither ca-cert.pem nor client-cert.pem"
    assert refusal_with(socket, empty) == neither


def test_a_key_that_is_missing(socket: Path, place: Path):
    (place / "client-key.pem").unlink()
    assert refusal_with(socket, place) == f"'{place}/client-key.pem': No such file or directory"


@pytest.mark.parametrize("name", ["ca-cert.pem", "client-cert.pem"])
def test_a_file_without_a_certificate(socket: Path, place: Path, name: str):
    (place / name).write_bytes(b"\xff\x00nothing")
    assert refusal_with(socket, place) == f"'{place}/{name}' has no certificate in PEM format"


@pytest.mark.parametrize("name", ["ca-cert.pem", "client-cert.pem"])
def test_a_damaged_certificate(socket: Path, place: Path, name: str):
    path = place / name
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    assert f"'{path}' has a damaged certificate: " in refusal_with(socket, place)


def test_a_wrong_key(socket: Path, place: Path, certificates: Path):
    key = place / "client-key.pem"
    shutil.copy(certificates / "server-key.pem", key)
    pair = f"'{key}' is not the key of the certificate in '{place}/client-cert.pem'"
    assert refusal_with(socket, place) == pair
    lines = key.read_text().splitlines(keepends=True)
    key.write_text(lines[0] + "AAAA\n" + lines[-1])
    assert f"'{key}' has a private key that cannot be read: " in refusal_with(socket, place)
    key.write_text("nothing")
    assert refusal_with(socket, place) == f"'{key}' has no private key in PEM format"


def test_a_key_with_a_passphrase(socket: Path, place: Path):
    key = place / "client-key.pem"
    openssl = shutil.which("openssl")
    assert openssl is not None
    encrypt = f"pkey -in {key} -aes256 -passout pass:secret -out {place}/new.pem"
    subprocess.run([openssl, *encrypt.split()], check=True, timeout=50)
    (place / "new.pem").rename(key)
    assert f"'{key}' needs a passphrase" in refusal_with(socket, place)


def test_an_unknown_authority(
    socket: Path, place: Path, tmp_path: Path, make_certificates: Callable[..., Path]
):
    text = refusal(socket)
    assert text.startswith("no authority of this system has signed the server's certificate")
    assert text.endswith("tls-certificates=DIRECTORY")
    other = make_certificates(tmp_path / "other")
    shutil.copy(other / "ca-cert.pem", place)
    assert refusal_with(socket, place).startswith(f"neither '{place}/ca-cert.pem' nor an authority")


def test_another_name(socket: Path, place: Path):
    text = refusal(socket, f"&tls-certificates={place}&tls-hostname=other.example")
    assert "is for another name than 'other.example'" in text
    assert text.endswith("tls-hostname=NAME")


def test_an_expired_certificate(
    serve: Serve, image: Path, tmp_path: Path, make_certificates: Callable[..., Path]
):
    expired = make_certificates(tmp_path / "expired", days=-1)
    for name in ("client-cert.pem", "client-key.pem"):
        (expired / name).unlink()
    served = serve(image, "--unix", tmp_path / "s", "--tls-certificates", expired)
    assert served.uri
    text = refusal_with(tmp_path / "s", expired)
    assert text == "the server's certificate has expired"


@pytest.fixture
def demanding(serve: Serve, image: Path, certificates: Path, tmp_path: Path) -> Path:
    """The socket of a server that demands certificates of its clients."""
    options = ("--tls-certificates", certificates, "--tls-verify-peer")
    assert serve(image, "--unix", tmp_path / "s", *options).uri
    return tmp_path / "s"


def test_a_server_that_wants_a_certificate(
    demanding: Path, place: Path, tmp_path: Path, make_certificates: Callable[..., Path]
):
    uri = f"{UNIX}{demanding}&tls-certificates={place}"
    assert inside("info", uri, "--can", "tls") == (0, "", "")
    other = make_certificates(tmp_path / "other")
    for name in ("client-cert.pem", "client-key.pem"):
        shutil.copy(other / name, place)
    assert "not accept the client's certificate" in fail("info", uri)
    for name in ("client-cert.pem", "client-key.pem"):
        (place / name).unlink()
    demand = "the server demands a client's certificate"
    advice = f"put client-cert.pem and client-key.pem into '{place}'"
    assert fail("info", uri).endswith(f"{demand}; {advice}")


@pytest.mark.skipif(sys.version_info < (3, 13), reason="keys need Python 3.13")
def test_keys(serve: Serve, image: Path, tmp_path: Path):
    keys = tmp_path / "keys"
    keys.write_text("alice:0011223344556677\n")
    assert serve(image, "--unix", tmp_path / "s", "--tls-psk", keys).uri

    def refusal_of(user: str, file: Path) -> str:
        uri = f"nbds+unix://{user}@/?socket={tmp_path}/s&tls-psk-file={file}"
        return fail("info", uri).removeprefix(f"homebound: cannot connect to {uri}: ")

    assert refusal_of("alice", tmp_path / "x") == f"'{tmp_path}/x': No such file or directory"
    assert f"'{keys}' has no line user:key for 'bob'" in refusal_of("bob", keys)
    wrong = tmp_path / "wrong"
    wrong.write_text("alice:ff\n")
    assert "may not know the user or the key" in refusal_of("alice", wrong)
