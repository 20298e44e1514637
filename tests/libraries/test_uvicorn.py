"""uvicorn: `--loop homebound:new_event_loop`, and a Server inside the program, in any home."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

import homebound

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from homebound import IOThread

    Run = Callable[..., Any]

uvicorn = pytest.importorskip("uvicorn")

APP = """
import asyncio
import json
import homebound

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                print("lifespan ended", flush=True)
                return
    facts = {
        "is_main": homebound.current_context() is homebound.main_context(),
        "task": type(asyncio.current_task()).__module__,
        "waited": homebound.block_on(asyncio.sleep(0.001, True)),
    }
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(facts).encode()})
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_command_line(tmp_path: Path, how: signal.Signals):
    (tmp_path / "served.py").write_text(APP)
    command = [sys.executable, "-m", "uvicorn", "served:app", "--port", "0"]
    command += ["--loop", "homebound:new_event_loop", "--no-access-log", "--no-use-colors"]
    with subprocess.Popen(
        command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if "running on" in line:
                    break
            url = line.split("running on ")[1].split()[0]
            with urllib.request.urlopen(url, timeout=20) as reply:
                facts = json.load(reply)
        finally:
            process.send_signal(how)
            rest, _ = process.communicate(timeout=20)
    assert facts == {"is_main": True, "task": "homebound", "waited": True}
    assert "lifespan ended" in rest
    assert "Traceback" not in rest
    assert process.returncode in (0, -how)


async def app(_scope: Any, _receive: Any, send: Any) -> None:
    context = homebound.current_context()
    assert context is not None
    body = context.name.encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def ask(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
    reply = await reader.read()
    writer.close()
    await writer.wait_closed()
    return reply.partition(b"\r\n\r\n")[2]


def make_server() -> tuple[Any, socket.socket]:
    """Make a server and the socket to give it, which listens already: no wait for the start."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, lifespan="off", log_config=None, http="h11")
    return uvicorn.Server(config), listener


def test_server_in_the_main_home(run: Run, io: IOThread):
    async def main() -> None:
        server, listener = make_server()
        port = listener.getsockname()[1]
        serving = asyncio.create_task(server.serve([listener]))
        here = homebound.current_context()
        assert here is not None
        replies = await asyncio.gather(ask(port), ask(port), io.spawn(ask(port)))
        assert {reply.decode() for reply in replies} == {here.name}
        server.should_exit = True
        await serving

    run(main())


def test_server_in_an_io_thread(run: Run, io: IOThread):
    async def main() -> None:
        server, listener = make_server()
        port = listener.getsockname()[1]
        serving = io.spawn(server.serve([listener]))
        assert set(await asyncio.gather(*(ask(port) for _ in range(5)))) == {b"io"}
        server.should_exit = True
        await serving

    run(main())
