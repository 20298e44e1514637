"""copy, info and bench with NBD servers: ours, and others' where they are installed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from homebound.testing import until

from .conftest import MIB, SIZE, Served
from .programs import TIMEOUT, fail, homebound, inside, need, running, succeed

if TYPE_CHECKING:
    from pathlib import Path

Serve = Callable[..., Served]
STUCK = """
import pathlib, threading
def size():
    return 4 << 20
def read(offset, length):
    return bytes(length)
def write(offset, new):
    pathlib.Path(__file__).with_name("writing").touch()
    threading.Event().wait()
"""
pytestmark = pytest.mark.peers


def storage(path: Path) -> int:
    return path.stat().st_blocks * 512


@pytest.mark.parametrize("connections", [1, 4])
def test_out_of_and_into_our_server(serve: Serve, holed: Path, tmp_path: Path, connections: int):
    target, back = tmp_path / "target.img", tmp_path / "back.img"
    target.write_bytes(b"o" * SIZE)
    source = serve(holed, "--unix", tmp_path / "a", "--read-only")
    options = ["--verify", "--connections", connections]
    succeed("copy", source.uri, back, *options)
    assert back.read_bytes() == holed.read_bytes()
    assert storage(back) <= storage(holed) + MIB
    served = serve(target, "--unix", tmp_path / "b")
    succeed("copy", source.uri, served.uri, *options)
    served.stop()
    assert target.read_bytes() == holed.read_bytes()
    assert storage(target) <= storage(holed) + MIB


def test_between_qemu_and_nbdkit(holed: Path, tmp_path: Path):
    need("qemu-nbd", "nbdkit")
    target = tmp_path / "target.img"
    target.write_bytes(b"o" * SIZE)
    sockets = tmp_path / "a", tmp_path / "b"
    qemu = ["qemu-nbd", "-f", "raw", "-r", "-t", "-e", "8", "-k", sockets[0], holed]
    nbdkit = ["nbdkit", "-f", "-U", sockets[1], "file", target]
    with running(sockets[0], *qemu) as source, running(sockets[1], *nbdkit) as other:
        succeed("copy", source, other, "--verify", "--connections", "2")
    assert target.read_bytes() == holed.read_bytes()


def test_a_stream_into_a_server(serve: Serve, holed: Path, tmp_path: Path):
    served = serve("--size", "8M", "--unix", tmp_path / "a")
    with holed.open("rb") as file:
        succeed("copy", "-", served.uri, stdin=file)
    done = homebound("copy", served.uri, "-")
    assert done.stdout == holed.read_bytes()


def test_only_what_a_bitmap_says(tmp_path: Path):
    need("qemu-nbd", "qemu-img", "qemu-io")
    image, backup, socket = tmp_path / "disk.qcow2", tmp_path / "backup.img", tmp_path / "a"

    def run(*command: object) -> None:
        subprocess.run([str(each) for each in command], check=True, capture_output=True)

    def io(*commands: str) -> None:
        run("qemu-io", "-f", "qcow2", *(part for each in commands for part in ("-c", each)), image)

    run("qemu-img", "create", "-f", "qcow2", image, SIZE)
    io("write -P 1 0 4M")
    with running(socket, "qemu-nbd", "-f", "qcow2", "-r", "-t", "-k", socket, image) as uri:
        succeed("copy", uri, backup, "--verify")
    socket.unlink(missing_ok=True)
    before = backup.read_bytes()
    run("qemu-img", "bitmap", "--add", image, "b0")
    io("write -P 2 1M 128k", "write -z 3M 64k", "write -P 3 7M 1k")
    with running(
        socket, "qemu-nbd", "-f", "qcow2", "-r", "-t", "-B", "b0", "-k", socket, image
    ) as uri:
        context = "qemu:dirty-bitmap:b0"
        assert context in succeed("info", uri)
        changed = json.loads(succeed("info", uri, "--map", context, "--json"))
        dirty = sum(each["length"] for each in changed if each["type"] == 1)
        assert dirty == 256 * 1024
        summary = json.loads(succeed("copy", uri, backup, "--bitmap", "b0", "--verify", "--json"))
        assert summary["written"] + summary["zeroes"] == dirty
        assert "has no bitmap 'b1'" in fail("copy", uri, backup, "--bitmap", "b1")
        state = tmp_path / "state"
        succeed("copy", uri, backup, "--bitmap", "b0", "--resume", state)
    after = bytearray(before)
    after[MIB : MIB + 128 * 1024] = b"\2" * 128 * 1024
    after[3 * MIB : 3 * MIB + 64 * 1024] = bytes(64 * 1024)
    after[7 * MIB : 7 * MIB + 1024] = b"\3" * 1024
    assert backup.read_bytes() == bytes(after)


def test_a_read_error_names_the_offset(tmp_path: Path):
    need("nbdkit")
    socket, bad, script = tmp_path / "a", MIB + 64 * 1024, tmp_path / "bad.sh"
    script.write_text(
        f"""#!/bin/bash
        case "$1" in
        get_size) echo {SIZE} ;;
        pread) if (( $4 < {bad + 512} && $4 + $3 > {bad} ))
               then echo EIO bad sector >&2; exit 1; fi
               head -c $3 /dev/zero | tr '\\0' x ;;
        *) exit 2 ;;
        esac
        """
    )
    script.chmod(0o755)
    with running(socket, "nbdkit", "-f", "-U", socket, "sh", script) as uri:
        line = fail("copy", uri, tmp_path / "target")
    assert line.startswith(f"homebound: cannot read {uri!r} at offset {bad}: ")


def test_a_server_that_cannot_be_written_to(serve: Serve, holed: Path, tmp_path: Path):
    small = serve("--size", "1M", "--unix", tmp_path / "a")
    line = fail("copy", holed, small.uri)
    assert line.endswith(f"is too small: it has {MIB} bytes, of {SIZE} to copy")
    locked = serve(holed, "--unix", tmp_path / "b", "--read-only")
    assert fail("copy", "memory:1M", locked.uri).endswith(": it is read-only")
    assert fail("bench", locked.uri, "--write").endswith(": it is read-only")


def test_a_server_that_is_killed(serve: Serve, tmp_path: Path):
    image = tmp_path / "large"
    with image.open("wb") as file:
        for part in range(64):
            file.write(bytes([part + 1]) * 4 * MIB)
    served = serve(image, "--unix", tmp_path / "a", "--read-only")
    options = ["--reconnect-delay", "0"]
    command = [sys.executable, "-m", "homebound", "copy", served.uri, "-", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as copying:
        assert copying.stdout is not None
        copying.stdout.read(1)  # it has begun, and waits for its reader
        served.process.kill()
        _, err = copying.communicate(timeout=TIMEOUT)
    assert copying.returncode == 1
    assert err.startswith(b"homebound: cannot read ")
    assert err.count(b"\n") == 1


@pytest.mark.parametrize("stream", [False, True])
def test_ctrl_c_while_a_server_does_not_answer(serve: Serve, tmp_path: Path, *, stream: bool):
    """A write in flight is waited for, but not forever."""
    source = tmp_path / "source"
    source.write_bytes(b"x" * 4 * MIB)
    script = tmp_path / "stuck.py"
    script.write_text(STUCK)
    served = serve(script, "--unix", tmp_path / "s")
    command = [sys.executable, "-m", "homebound", "copy", str(source), served.uri]
    if stream:
        command[-2] = "-"
    with source.open("rb") as file, subprocess.Popen(command, stdin=file) as copying:
        until((tmp_path / "writing").exists, patience=TIMEOUT)
        copying.send_signal(signal.SIGINT)
        assert copying.wait(TIMEOUT) == 130
    served.process.kill()


def test_the_same_information_as_nbdinfo(holed: Path, tmp_path: Path):
    need("nbdinfo", "qemu-nbd")
    socket = tmp_path / "a"
    command = ["qemu-nbd", "-f", "raw", "-t", "-k", socket, "-x", "a b", "-D", "words", holed]
    with running(socket, *command):
        uri = f"nbd+unix:///a%20b?socket={socket}"
        for arguments in (["--json"], ["--list", "--json"], ["--map", "--json"]):
            peer = subprocess.run(
                ["nbdinfo", *arguments, uri], check=True, capture_output=True, timeout=TIMEOUT
            )
            assert json.loads(succeed("info", *arguments, uri)) == json.loads(peer.stdout)
        for capability in ("write", "fua", "df", "fast-zero", "multi-conn", "trim", "cache"):
            peer = subprocess.run(
                ["nbdinfo", "--can", capability, uri], check=False, timeout=TIMEOUT
            )
            assert inside("info", "--can", capability, uri)[0] == peer.returncode


def test_a_list_of_exports(serve: Serve, holed: Path, tmp_path: Path):
    served = serve("--export", f"a={holed}", "--export", "b/c=memory:1M", "--unix", tmp_path / "s")
    exports = json.loads(succeed("info", "--list", served.uri, "--json"))["exports"]
    assert [(each["export-name"], each["export-size"]) for each in exports] == [
        ("a", SIZE),
        ("b/c", MIB),
    ]
    assert exports[1]["uri"] == f"nbd+unix:///b%2Fc?socket={tmp_path}/s"
    assert succeed("info", exports[1]["uri"]).count("export-size: 1048576 (1M)") == 1


def test_a_list_without_exports_and_with_a_bad_one(tmp_path: Path):
    need("nbdkit")
    socket, directory = tmp_path / "s", tmp_path / "images"
    directory.mkdir()
    with running(socket, "nbdkit", "-f", "-U", socket, "file", f"dir={directory}") as uri:
        answer = json.loads(succeed("info", "--list", "--json", uri))
        assert (answer["protocol"], answer["exports"]) == ("newstyle-fixed", [])
        (directory / "good").write_bytes(bytes(MIB))
        os.mkfifo(directory / "bad")
        status, out, _ = inside("info", "--list", "--json", uri)
    assert "good" in [each["export-name"] for each in json.loads(out)["exports"]]
    assert status == 0


def test_an_empty_disk(tmp_path: Path):
    need("nbdkit")
    socket = tmp_path / "s"
    with running(socket, "nbdkit", "-f", "-U", socket, "null") as uri:
        assert fail("copy", uri, tmp_path / "target").endswith(
            " is empty: there is nothing to copy"
        )
        assert "export-size: 0" in succeed("info", uri)
        assert succeed("info", "--map", uri) == ""


def test_what_a_server_refuses(serve: Serve, tmp_path: Path):
    served = serve("--size", "1M", "--name", "x", "--unix", tmp_path / "s")
    uri = f"nbd+unix:///y?socket={tmp_path}/s"
    for command in (["info", uri], ["info", "--map", uri], ["copy", uri, tmp_path / "t"]):
        assert "cannot connect to" in fail(*command)
    assert "has no context 'other:x'" in fail("info", served.uri, "--map", "other:x")
    served.stop()
    assert "cannot connect to" in fail("info", "--list", served.uri)
    assert not (tmp_path / "t").exists()


def test_a_measurement_over_the_net(serve: Serve, tmp_path: Path):
    served = serve("--size", "1M", "--unix", tmp_path / "s")
    options = ["--mixed", "--seconds", "0.3", "--depth", "128", "--connections", "2"]
    out = succeed("bench", served.uri, *options, "--json")
    figures = json.loads(out)
    assert figures["read"]["requests"] > figures["write"]["requests"] > 0
