"""Standard streams that are closed, full, or no longer read."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest

from .conftest import SERVE, TIMEOUT, Served

if TYPE_CHECKING:
    from collections.abc import Iterator

Serve = Callable[..., Served]
Refused = Callable[..., str]

FULL = "cannot write to standard output: No space left on device"


@contextmanager
def full() -> Iterator[IO[bytes]]:
    with Path("/dev/full").open("wb") as device:
        yield device


def in_shell(command: str, *arguments: object) -> subprocess.Popen[str]:
    """Run the server with its streams redirected by the shell."""
    line = [*SERVE, *map(str, arguments)]
    return subprocess.Popen(["sh", "-c", command, *line], stderr=subprocess.PIPE, text=True)


def test_a_full_standard_output_is_reported(refused: Refused, tmp_path: Path):
    with full() as device:
        assert FULL in refused("--size", "1M", "--unix", tmp_path / "s", stdout=device)
    assert not (tmp_path / "s").exists()


def test_a_reader_that_has_gone_is_reported(refused: Refused, tmp_path: Path):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        text = refused("--size", "1M", "--unix", tmp_path / "s", stdout=writer)
    finally:
        os.close(writer)
    assert "cannot write to standard output: Broken pipe" in text


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_to_a_full_output(option: str):
    with full() as device:
        done = subprocess.run(
            [sys.executable, "-m", "homebound", option],
            stdout=device,
            stderr=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, f"homebound: {FULL}\n")


def test_a_full_standard_error_does_not_matter(serve: Serve, tmp_path: Path):
    with full() as device:
        served = serve("--size", "1M", "--unix", tmp_path / "s", stderr=device)
    assert served.uri
    assert served.stop() == (0, "", "")


def test_an_error_to_a_full_standard_error_sets_the_status(serve: Serve, tmp_path: Path):
    with full() as device:
        served = serve(tmp_path / "none.img", stderr=device)
    assert served.finish() == (1, "", "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(image: Path, closed: str):
    """Check that no file gets the descriptor of a standard stream, which libraries write to."""
    path = image.with_suffix(".sock")
    process = in_shell(f'exec "$0" "$@" {closed}', image, "--unix", path)
    try:
        while not path.exists():
            assert process.poll() is None
            time.sleep(0.02)
        numbers = {}
        for entry in Path(f"/proc/{process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # it has been closed meanwhile
                numbers[int(entry.name)] = str(entry.readlink())
        assert str(image) in numbers.values()
        for number, there in enumerate(["<", ">", "2>"]):
            if f"{there}&-" in closed.split():
                assert numbers[number] == "/dev/null"
    finally:
        process.terminate()
        process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
