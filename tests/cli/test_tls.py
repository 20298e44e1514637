"""TLS options of `homebound serve`."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.peers


def info(uri: str) -> int:
    done = subprocess.run(["nbdinfo", uri], capture_output=True, timeout=50, check=False)
    return done.returncode


def test_it_is_offered_or_required(serve: Callable[..., Any], certificates: Path):
    for required in (False, True):
        options = ("--tls-required",) if required else ()
        served = serve("--port", "0", "--tls-certificates", certificates, *options)
        scheme, address = served.uri.split("://")
        assert scheme == ("nbds" if required else "nbd")
        assert info(f"nbds://{address}?tls-certificates={certificates}") == 0
        assert bool(info(f"nbd://{address}")) == required
        assert served.stop()[0] == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--tls-required",), "--tls-required needs --tls-certificates or --tls-psk"),
        (("--tls-verify-peer",), "--tls-verify-peer needs --tls-certificates"),
        (("--tls-certificates", "x", "--tls-psk", "y"), "choose one"),
    ],
)
def test_wrong_use(serve: Callable[..., Any], options: tuple[str, ...], said: str):
    code, _, err = serve(*options).finish()
    assert code == 2
    assert said in err


def test_files_that_are_missing_or_wrong(serve: Callable[..., Any], tmp_path: Path):
    code, _, err = serve("--tls-certificates", tmp_path).finish()
    assert code == 1
    assert f"cannot use TLS: '{tmp_path}/server-cert.pem': No such file or directory" in err
    for name in ("server-cert.pem", "server-key.pem"):
        (tmp_path / name).write_text("nothing")
    code, _, err = serve("--tls-certificates", tmp_path).finish()
    where = f"'{tmp_path}/server-cert.pem' has no certificate in PEM format"
    assert (code, err) == (1, f"homebound: cannot use TLS: {where}\n")
    code, _, err = serve("--tls-certificates", tmp_path / "none").finish()
    where = f"there is no directory '{tmp_path}/none': {os.strerror(errno.ENOENT)}"
    assert (code, err) == (1, f"homebound: cannot use TLS: {where}\n")


def test_keys(serve: Callable[..., Any], tmp_path: Path):
    keys = tmp_path / "keys"
    keys.write_text("alice:0011223344556677\n")
    served = serve("--port", "0", "--tls-psk", keys)
    if sys.version_info < (3, 13):
        code, _, err = served.finish()
        assert (code, "Python 3.13" in err) == (1, True)
        return
    address = served.uri.split("://")[1]
    assert info(f"nbds://alice@{address}?tls-psk-file={keys}") == 0
    assert served.stop()[0] == 0
