"""`homebound ps`, `pstree` and `top`, of this process and of another one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import homebound
from homebound.debug import listen
from homebound.testing import until

from .programs import fail, succeed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Have three tasks on two homes wait for one another, and listen."""

    async def inner() -> None:
        await homebound.suspend()

    async def awaits(task: homebound.Task[None]) -> None:
        await task

    with (
        homebound.IOThread("disk") as disk,
        homebound.IOThread("net") as net,
        listen(tmp_path / "top"),
    ):
        task = disk.spawn(inner(), name="inner")
        net.spawn(awaits(net.spawn(awaits(task), name="middle")), name="outer")
        until(lambda: succeed("ps", tmp_path / "top").count("waits for task") == 2)
        until(lambda: "suspended" in succeed("ps", tmp_path / "top"))
        yield tmp_path / "top"


def test_ps(path: Path):
    titles, *lines = succeed("ps", path, "--once").splitlines()
    assert titles.split() == ["TASK", "HOME", "COROUTINE", "DOES"]
    assert {line.split()[0] for line in lines} == {"inner", "middle", "outer"}
    [line] = [line for line in lines if line.startswith("inner")]
    assert line.split()[1:] == ["disk", "path.<locals>.inner", "suspended"]


def test_pstree(path: Path):
    lines = succeed("pstree", path).splitlines()
    begin = lines.index("└─ outer: waits for task 'middle', at home in 'net'")
    assert lines[begin - 1].startswith("net, thread net, ")
    assert lines[begin + 1 :] == [
        "   └─ middle [net]: waits for task 'inner', at home in 'disk'",
        "      └─ inner [disk]: suspended",
    ]
    assert [line for line in lines if line.startswith("disk, thread disk, ")]


def test_top(path: Path):
    first, titles, *lines = succeed("top", path, "--once").splitlines()
    assert first.startswith(f"process {os.getpid()}, Python 3.")
    assert "big lock free" in first
    assert titles.split()[:5] == ["HOME", "THREAD", "STATE", "TASKS", "READY"]
    counts = {line.split()[0]: line.split()[-5] for line in lines if "not running" not in line}
    assert (counts["disk"], counts["net"]) == ("1", "2")


@pytest.mark.parametrize("command", ["ps", "pstree", "top"])
def test_json(path: Path, command: str):
    seen = json.loads(succeed(command, path, "--once", "--json"))
    assert seen["pid"] == os.getpid()
    assert {"disk", "net"} <= {home["name"] for home in seen["homes"]}
    assert {task["name"] for task in seen["tasks"]} == (
        set() if command == "top" else {"inner", "middle", "outer"}
    )


def test_top_goes_on_until_interrupted(path: Path):
    command = [sys.executable, "-m", "homebound", "top", str(path), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            first, second = (json.loads(process.stdout.readline()) for _ in range(2))
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert first["time"] < second["time"]
    assert (process.returncode, err) == (0, b"")


def test_by_the_number_of_a_process(path: Path, tmp_path: Path):
    with socket.socket(socket.AF_UNIX) as other:  # one that says nothing
        other.bind(str(tmp_path / "another"))
        other.listen()
        assert json.loads(succeed("ps", os.getpid(), "--json"))["pid"] == os.getpid()
    assert path.exists()


def test_what_cannot_be_looked_at(tmp_path: Path):
    none = tmp_path / "none"
    assert fail("ps", none) == f"homebound: cannot connect to '{none}': No such file or directory"
    assert "does not listen; start it with HOMEBOUND_TOP=path" in fail("top", os.getpid())
    assert "cannot look at process 0: there is none" in fail("pstree", "0")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(none))
        server.listen()
        client = subprocess.Popen(
            [sys.executable, "-m", "homebound", "ps", str(none)], stderr=subprocess.PIPE
        )
        with client, server.accept()[0] as end:
            end.sendall(b"NBDMAGICIHAVEOPT")
            _, err = client.communicate(timeout=30)
    assert client.returncode == 1
    assert err.decode() == (
        f"homebound: cannot read from '{none}': no program of homebound listens there\n"
    )
    assert "--help" in fail("ps", code=2)


def test_a_process_that_has_ended():
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        line = fail("ps", process.pid)
    assert f"cannot look at process {process.pid}: it has ended, and waits for its parent" in line
