"""listen: the socket, its snapshots, who has it, and its end."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.debug import listen
from homebound.testing import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GREETING = b"homebound top\n"


def ask(path: object, request: bytes = b"tasks\n") -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(os.fspath(path))  # type: ignore[call-overload]
        with client.makefile("rb") as answer:
            assert answer.readline() == GREETING
            client.sendall(request)
            seen: dict[str, Any] = json.loads(answer.read())
    return seen


def named(seen: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {task["name"]: task for task in seen["tasks"]}


@contextmanager
def two_tasks() -> Iterator[homebound.Lock]:
    """Have `waiter`, at home in `disk`, wait for a lock, and `outer` in `net` for `waiter`."""
    lock = homebound.Lock(name="journal")

    async def waits() -> None:
        async with lock:
            pass

    async def awaits(task: homebound.Task[None]) -> None:
        await task

    with homebound.IOThread("disk") as disk, homebound.IOThread("net") as net, lock:
        waiter = disk.spawn(waits(), name="waiter")
        net.spawn(awaits(waiter), name="outer")
        yield lock


def test_a_snapshot(tmp_path: Path):
    with listen(tmp_path / "top"), two_tasks():
        until(lambda: named(ask(tmp_path / "top"))["outer"]["awaits"])
        until(lambda: "journal" in named(ask(tmp_path / "top"))["waiter"]["does"])
        seen = ask(tmp_path / "top")
    tasks, homes = named(seen), {home["name"]: home for home in seen["homes"]}
    assert tasks["outer"]["awaits"] == [tasks["waiter"]["id"]]
    assert tasks["outer"]["does"] == "waits for task 'waiter', at home in 'disk'"
    assert tasks["waiter"]["does"].startswith("waits for the Lock 'journal'")
    assert (tasks["waiter"]["home"], tasks["waiter"]["kind"]) == ("disk", "homebound")
    assert "two_tasks.<locals>.waits" in tasks["waiter"]["stack"][0]
    assert (homes["disk"]["thread"], homes["disk"]["tasks"], homes["disk"]["main"]) == (
        "disk",
        1,
        False,
    )
    assert seen["pid"] == os.getpid()
    assert seen["big_lock"] == {"holder": None, "waiters": []}


def test_homes_alone(tmp_path: Path):
    with listen(tmp_path / "top"), two_tasks():
        seen = ask(tmp_path / "top", b"homes\n")
    assert seen["tasks"] == []
    assert {"disk", "net"} <= {home["name"] for home in seen["homes"]}


def test_while_the_main_home_hangs(tmp_path: Path):
    """The main home, its loop and the big lock stand still; so may every other home."""

    async def main() -> dict[str, Any]:
        return ask(tmp_path / "top")  # in the home itself: its loop cannot turn

    with listen(tmp_path / "top"):
        seen = homebound.run(main())
    [home] = [home for home in seen["homes"] if home["main"]]
    assert (home["state"], home["thread"]) == ("running", threading.current_thread().name)
    assert seen["big_lock"]["holder"] == threading.current_thread().name
    assert [task["does"] for task in seen["tasks"]] == ["running"]


def test_threads_that_wait(tmp_path: Path):
    lock = homebound.Lock(name="journal")
    with listen(tmp_path / "top"), lock:
        thread = threading.Thread(target=lock.acquire_sync, name="blocked")
        thread.start()
        until(lambda: ask(tmp_path / "top")["threads"])
        [waiting] = ask(tmp_path / "top")["threads"]
    thread.join()
    assert waiting["name"] == "blocked"
    assert waiting["does"].startswith("waits for the Lock 'journal'")


def test_tasks_of_asyncio(tmp_path: Path):
    async def main() -> dict[str, Any]:
        homebound.AioContext.attach(asyncio.get_running_loop())
        other = asyncio.create_task(asyncio.sleep(100), name="other")
        waiting = asyncio.create_task(asyncio.wait_for(other, 100), name="waiting")
        await asyncio.sleep(0.01)
        try:
            return await asyncio.to_thread(ask, tmp_path / "top")
        finally:
            waiting.cancel()
            await asyncio.wait([waiting, other])

    with listen(tmp_path / "top"):
        seen = named(asyncio.run(main()))
    assert (seen["other"]["kind"], seen["other"]["does"]) == ("asyncio", "waits for a future")


def test_only_its_user_may_connect(tmp_path: Path):
    with listen(tmp_path / "top") as listener:
        mode = (tmp_path / "top").stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
    assert not (tmp_path / "top").exists()
    assert "closed" in repr(listener)
    listener.close()


def test_taken_and_left_behind(tmp_path: Path):
    path = tmp_path / "top"
    with listen(path):
        with pytest.raises(OSError, match="in use") as caught:
            listen(path)
        assert caught.value.errno == errno.EADDRINUSE
        assert ask(path)["pid"] == os.getpid()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(os.fspath(path))
    with listen(path):  # no program answers there
        assert ask(path)["pid"] == os.getpid()
    path.write_text("a file of its own")
    with pytest.raises(OSError, match="in use"):
        listen(path)
    assert path.read_text() == "a file of its own"
    with pytest.raises(FileNotFoundError):
        listen(tmp_path / "none" / "top")


def test_clients_that_go_without_a_word(tmp_path: Path):
    with listen(tmp_path / "top") as listener:
        for _ in range(3):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(listener.path)
        assert ask(listener.path)["pid"] == os.getpid()


def test_it_closes_though_a_client_asks_nothing(tmp_path: Path):
    with listen(tmp_path / "top") as listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(listener.path)
        assert client.recv(100) == GREETING
        listener.close()
        assert client.recv(100) == b""


def test_it_survives_without_descriptors(tmp_path: Path):
    program = f"""
import homebound.debug, os, resource, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
with homebound.debug.listen({str(tmp_path / "top")!r}) as listener:
    with socket.socket(socket.AF_UNIX) as client:
        full = []
        try:
            while True:
                full.append(os.dup(client.fileno()))
        except OSError:
            client.connect(listener.path)
        os.closerange(min(full), max(full) + 1)
        print(client.recv(9))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert (done.stdout, done.stderr) == ("b'homebound'\n", "")


def test_a_forked_process_leaves_it_to_its_parent(tmp_path: Path):
    program = f"""
import homebound.debug, os, socket
listener = homebound.debug.listen({str(tmp_path / "top")!r})
child = os.fork()
if not child:
    listener.close()
    os._exit(0)
os.waitpid(child, 0)
with socket.socket(socket.AF_UNIX) as client:
    client.connect(listener.path)
    print(client.recv(9))
"""
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert (done.stdout, done.stderr) == ("b'homebound'\n", "")
    assert not (tmp_path / "top").exists()  # removed at the exit


@pytest.mark.parametrize("where", ["top", "none/top"])
def test_the_environment_variable(tmp_path: Path, where: str):
    path = tmp_path / where
    program = "import homebound, sys; print('begun', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HOMEBOUND_TOP": str(path)},
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            if where == "top":
                assert ask(path)["pid"] == process.pid
            _, err = process.communicate("", timeout=30)
        finally:
            process.send_signal(signal.SIGKILL)
    assert ("cannot listen: No such file or directory" in err) == (where != "top")
    assert process.returncode == 0
    assert not path.exists()
