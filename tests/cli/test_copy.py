"""`homebound copy`, from outside, on files with holes."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from homebound.block._copying.state import load_state
from homebound.testing import until

from .programs import TIMEOUT, fail, homebound, succeed

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
SIZE = 8 * MIB + 12345  # the last block is odd


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file of data, holes, and zeroes that are written."""
    path = tmp_path / "source.img"
    with path.open("wb") as file:
        file.truncate(SIZE)
        file.write(random.Random(1).randbytes(MIB))
        file.seek(3 * MIB)
        file.write(bytes(MIB) + b"x" * 5000)
        file.seek(SIZE - 99)
        file.write(b"y" * 99)
    return path


def storage(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_a_file_arrives_with_its_holes(source: Path, tmp_path: Path):
    target = tmp_path / "target.img"
    assert succeed("copy", source, target) == ""
    assert target.read_bytes() == source.read_bytes()
    assert storage(target) <= 1.5 * MIB
    assert storage(target) < storage(source)


@pytest.mark.parametrize("size", [1, 511, 512, 4097, 256 * 1024 + 1])
def test_odd_sizes(tmp_path: Path, size: int):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(random.Random(size).randbytes(size))
    succeed("copy", source, target, "--verify")
    assert target.read_bytes() == source.read_bytes()


def test_a_file_that_exists_is_made_anew(source: Path, tmp_path: Path):
    target = tmp_path / "target.img"
    target.write_bytes(b"old" * 5 * MIB)
    succeed("copy", source, target, "--verify")
    assert target.read_bytes() == source.read_bytes()


def test_streams(source: Path, tmp_path: Path):
    target, last = tmp_path / "target.img", tmp_path / "last.img"
    command = f"{shlex.quote(sys.executable)} -m homebound copy"
    pipe = f"{command} {source} - | {command} - {target} && {command} {target} - > {last}"
    subprocess.run(pipe, shell=True, check=True, timeout=TIMEOUT)
    assert target.read_bytes() == last.read_bytes() == source.read_bytes()
    assert storage(target) <= 1.5 * MIB
    assert storage(last) <= 1.5 * MIB


def test_standard_input_from_a_file_and_of_nothing(source: Path, tmp_path: Path):
    target = tmp_path / "target.img"
    with source.open("rb") as file:
        succeed("copy", "-", target, stdin=file)
    assert target.read_bytes() == source.read_bytes()
    succeed("copy", "-", target, stdin=subprocess.DEVNULL)
    assert target.read_bytes() == b""


def test_output_appended_to_a_file(source: Path, tmp_path: Path):
    target = tmp_path / "target"
    target.write_bytes(b"before")
    with target.open("ab") as file:
        succeed("copy", source, "-", stdout=file)
    assert target.read_bytes() == b"before" + source.read_bytes()


def test_output_over_what_a_file_has(source: Path, tmp_path: Path):
    """Zeroes must replace what is there, not be skipped."""
    target = tmp_path / "target"
    target.write_bytes(b"o" * (SIZE + 10))
    with target.open("r+b") as file:
        succeed("copy", source, "-", stdout=file)
    assert target.read_bytes() == source.read_bytes() + b"o" * 10


def test_json(source: Path, tmp_path: Path):
    out = succeed("copy", source, tmp_path / "target", "--json", "--verify")
    summary = json.loads(out.splitlines()[-1])
    assert summary["event"] == "done"
    assert summary["size"] == summary["written"] + summary["zeroes"] == SIZE
    assert summary["verified"] is True
    assert summary["resumed_at"] == 0
    assert summary["bytes_per_second"] > 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["{source}", "{source}"], "SRC and DST are the same file"),
        (["{source}", "memory:1M"], "'memory' is too small: it has 1048576 bytes, of 8400953 to"),
        (["{source}", "/dev/null"], "'/dev/null': it is neither a file nor a block device"),
        (["{source}", "{tmp}"], "Is a directory"),
        (["{source}", "{tmp}/no/where"], "/no/where': there is no directory"),
        (["{tmp}/nothing", "{tmp}/target"], "nothing': No such file or directory"),
        (["{source}", "{tmp}/target", "--resume", "{tmp}/no/state"], "cannot write the state file"),
    ],
)
def test_what_cannot_be_done(source: Path, tmp_path: Path, arguments: list[str], text: str):
    words = [each.format(source=source, tmp=tmp_path) for each in arguments]
    assert text in fail("copy", *words)
    assert source.stat().st_size == SIZE


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["a"], "Missing argument 'DST'"),
        (["-", "-"], "SRC and DST are both -"),
        (["-", "b", "--verify"], "--verify cannot read - again"),
        (["a", "-", "--json"], "both write to standard output"),
        (["a", "-", "--resume", "s"], "--resume cannot find - or memory:SIZE again"),
        (["a", "memory:1M", "--resume", "s"], "--resume cannot find - or memory:SIZE again"),
        (["a", "b", "--resume", "./b"], "--resume needs a file of its own"),
        (["a", "b", "--bitmap", "b0"], "--bitmap needs an NBD URI as SRC"),
        (["a", "b", "--connections", "0"], "0 is not in the range"),
        (["a", ""], "it is empty"),
        (["memory:much", "b"], "'much' is not a size"),
    ],
)
def test_wrong_use(arguments: list[str], text: str):
    line = fail("copy", *arguments, code=2)
    assert text in line
    assert line.endswith("; see homebound copy --help")


def test_an_image_in_use_is_not_touched(source: Path, tmp_path: Path):
    target = tmp_path / "target.img"
    target.write_bytes(b"precious" * 1000)
    served = subprocess.Popen(
        [sys.executable, "-m", "homebound", "serve", target, "--unix", tmp_path / "socket"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with served:
        assert served.stdout is not None
        served.stdout.readline()
        assert "has it open for writing" in fail("copy", source, target)
        served.terminate()
    assert target.read_bytes() == b"precious" * 1000


def test_a_full_disk(source: Path, tmp_path: Path):
    """A limit of the file's size is what a test can have without a file system of its own."""
    limit = 128 * 1024
    python = shlex.quote(sys.executable)
    script = f"ulimit -f {limit // 1024}; exec {python} -m homebound copy {source} -"
    with (tmp_path / "target").open("wb") as file:
        done = subprocess.run(
            ["bash", "-c", script],
            stdout=file,
            stderr=subprocess.PIPE,
            check=False,
            timeout=TIMEOUT,
        )
    assert done.returncode == 1
    assert done.stderr.startswith(b"homebound: cannot write to standard output at offset ")
    assert done.stderr.endswith(b": File too large\n")


def test_a_source_that_becomes_shorter(tmp_path: Path):
    """The line names the first block that is not there."""
    source = tmp_path / "source"
    source.write_bytes(b"x" * 64 * MIB)
    command = [sys.executable, "-m", "homebound", "copy", str(source), "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)  # it has begun, and waits for its reader
        os.truncate(source, 40 * MIB)
        _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    assert err.decode() == (
        f"homebound: cannot read {str(source)!r} at offset {40 * MIB}: "
        f"{str(source)!r} has become shorter: nothing is left at {40 * MIB}\n"
    )


HALF_WAITS = """
import asyncio, pathlib
here = pathlib.Path(__file__).parent
source = here / "source"
def size():
    return source.stat().st_size
async def read(offset, length):
    while offset >= size() // 2 and not (here / "go on").exists():
        await asyncio.sleep(0.01)
    with source.open("rb") as file:
        file.seek(offset)
        return file.read(length)
"""


def test_ctrl_c_keeps_the_state(tmp_path: Path):
    """It comes in the middle: the second half of the source waits."""
    source, target, state = (tmp_path / name for name in ("source", "target", "state"))
    source.write_bytes(b"".join(bytes([part + 1]) * MIB for part in range(64)))
    script = tmp_path / "script.py"
    script.write_text(HALF_WAITS)
    words = ["copy", str(script), str(target), "--resume", str(state)]
    command = [sys.executable, "-m", "homebound", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            until(lambda: state.exists() and done_in(state) == 32 * MIB, patience=TIMEOUT)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=TIMEOUT)
        finally:
            process.kill()
    assert process.returncode == 130
    assert b"the same command goes on there" in err
    assert done_in(state) == 32 * MIB
    with source.open("rb") as ours, target.open("rb") as theirs:
        assert ours.read(32 * MIB) == theirs.read(32 * MIB)
    (tmp_path / "go on").touch()
    succeed("copy", script, target, "--resume", state, "--verify")
    assert not state.exists()
    assert target.read_bytes() == source.read_bytes()
    done = homebound("copy", script, target, "--resume", state)
    assert done.returncode == 0


def done_in(state: Path) -> int:
    """Return how far a copy came that left this state."""
    saved = load_state(str(state))
    assert saved is not None
    return saved.done


def test_a_state_of_another_copy_is_refused(source: Path, tmp_path: Path):
    state, target = tmp_path / "state", tmp_path / "target"
    target.write_bytes(b"kept" * 3 * MIB)
    state.write_text("{}")
    assert "is not the state of a copy" in fail("copy", source, target, "--resume", state)
    assert target.read_bytes() == b"kept" * 3 * MIB


@pytest.mark.parametrize("times", [1, 3])
def test_ctrl_c_while_the_disk_is_stuck(tmp_path: Path, times: int):
    """A call in a thread cannot be ended; the process is, with a line."""
    script, reads = tmp_path / "stuck.py", tmp_path / "reads"
    script.write_text(
        f"""
import pathlib, time
size = 1 << 20
def read(offset, length):
    pathlib.Path({str(reads)!r}).touch()
    time.sleep(600)
"""
    )
    command = [sys.executable, "-m", "homebound", "copy", str(script), str(tmp_path / "copy.img")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not reads.exists():
            time.sleep(0.01)
        for _ in range(times):
            process.send_signal(signal.SIGINT)
            time.sleep(0.5)
        _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130
    assert "interrupted; a request that does not end was given up" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("stream", [False, True])
def test_a_target_of_another_format_is_kept(source: Path, tmp_path: Path, *, stream: bool):
    target = tmp_path / "disk.qcow2"
    old = b"QFI\xfb\0\0\0\x03" + bytes(1000)
    target.write_bytes(old)
    text = f"DST '{target}' is a qcow2 image, and would become a raw one"
    assert text in fail("copy", "-" if stream else source, target)
    assert target.read_bytes() == old
    if not stream:
        succeed("copy", source, target, "--format", "raw", "--json")
        assert target.read_bytes() == source.read_bytes()
