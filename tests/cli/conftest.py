"""A running `homebound serve`, in a process of its own as for users."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TIMEOUT = 50
MIB = 1 << 20
SIZE = 8 * MIB  # of the image `holed`
SERVE = [sys.executable, "-m", "homebound", "serve"]


_NBD = Path(__file__).parents[1] / "nbd" / "certificates.py"


@pytest.fixture(scope="session")
def make_certificates() -> Callable[..., Path]:
    """Return the function of tests/nbd that makes a directory of certificates."""
    spec = importlib.util.spec_from_file_location("certificates", _NBD)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: Callable[..., Path] = module.make_certificates
    return made


@pytest.fixture(scope="session")
def certificates(
    tmp_path_factory: pytest.TempPathFactory, make_certificates: Callable[..., Path]
) -> Path:
    return make_certificates(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def holed(tmp_path: Path) -> Path:
    """An image of `SIZE` bytes with holes before and after its data."""
    path = tmp_path / "holed.img"
    with path.open("wb") as file:
        file.truncate(SIZE)
        file.seek(MIB)
        file.write(random.Random(1).randbytes(3 * MIB))
    return path


class Served:
    """A running `homebound serve`."""

    def __init__(self, *arguments: str | bytes, **options: Any) -> None:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        self.process = subprocess.Popen([*SERVE, *arguments], text=True, **streams)
        self.uri = ""  # empty if it has failed
        if self.process.stdout is not None:
            self.uri = self.process.stdout.readline().strip()

    def hear(self) -> str:
        """Return the next line on standard error."""
        assert self.process.stderr is not None
        line: str = self.process.stderr.readline()
        return line

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Stop it; return its exit code and its output after the first line."""
        self.process.send_signal(number)
        return self.finish()

    def finish(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=TIMEOUT)
        return self.process.returncode, out or "", err or ""


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    running: list[Served] = []

    def start(*arguments: object, **options: Any) -> Served:
        texts = [each if isinstance(each, bytes) else str(each) for each in arguments]
        served = Served(*texts, **options)
        running.append(served)
        return served

    yield start
    for served in running:
        if served.process.poll() is None:
            served.process.kill()
        served.process.communicate(timeout=TIMEOUT)


@pytest.fixture
def refused(serve: Callable[..., Served]) -> Callable[..., str]:
    """Start it with wrong arguments; return its line of output, and check its status."""

    def refuse(*arguments: object, code: int = 1, **options: Any) -> str:
        served = serve(*arguments, **options)
        status, out, err = served.finish()
        assert (status, served.uri, out) == (code, "", "")
        assert err.count("\n") == 1
        assert err.startswith("homebound")
        return err.strip()

    return refuse


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(range(256)) * 4096)
    return path


LIBNBD = "/usr/bin/python3"  # of the distribution, for which libnbd is built


@pytest.fixture
def libnbd() -> Callable[[str | None, str], str]:
    """Run code with `nbd` and a client `h`, connected unless the URI is None; return its output."""
    # The modules of this interpreter are not for that one.
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    found = subprocess.run(
        [LIBNBD, "-c", "import nbd"], capture_output=True, env=clean, check=False
    )
    if found.returncode:
        pytest.skip("libnbd for Python (Debian: python3-libnbd) is not installed")

    def run(uri: str | None, code: str) -> str:
        connect = "" if uri is None else f"h.connect_uri({uri!r})"
        program = f"import nbd\nh = nbd.NBD()\n{connect}\n{code}"
        done = subprocess.run(
            [LIBNBD, "-c", program],
            stdout=subprocess.PIPE,
            text=True,
            env=clean,
            timeout=TIMEOUT,
            check=True,
        )
        return done.stdout

    return run


@contextmanager
def without_reading(path: Path) -> Iterator[None]:
    """Make a file unreadable within the block."""
    mode = path.stat().st_mode
    path.chmod(0)
    try:
        yield
    finally:
        path.chmod(mode)
