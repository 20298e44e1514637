"""Debug mode: a stall watch while a home runs, and transports and streams that know their home."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import IOThread, WrongThread, on
from homebound._debug.debug_mode import _State
from homebound.testing import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Have asyncio log no slow callbacks: the tests run on slow machines."""
    logger = logging.getLogger("asyncio")
    before = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(before)


def watches() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name == "stall-watch"]


def run_debug(main: Any) -> Any:
    return homebound.run(main, debug=True)


def run_in_runner(main: Any) -> Any:
    with asyncio.Runner(debug=True, loop_factory=homebound.new_event_loop) as runner:
        return runner.run(main)


# The watch.


@pytest.mark.parametrize("run", [run_debug, run_in_runner])
def test_a_watch_while_a_home_runs(run: Callable[[Any], Any]):
    async def main() -> list[str]:
        return watches()

    assert run(main()) == ["stall-watch"]
    assert watches() == []


def test_no_watch_without_debug_mode():
    async def main() -> list[str]:
        return watches()

    assert homebound.run(main()) == []


def test_one_watch_for_all_homes():
    def factory() -> asyncio.AbstractEventLoop:
        loop = homebound.new_event_loop()
        loop.set_debug(True)
        return loop

    async def main() -> list[str]:
        return watches()

    with IOThread(loop_factory=factory) as io:
        # This home first: the other takes its watch for started, though it may still be starting.
        assert homebound.block_on(main(), io) == ["stall-watch"]
        assert run_debug(main()) == ["stall-watch"]
    assert watches() == []
    assert _State.homes == 0


def test_a_stall_is_reported(caplog: pytest.LogCaptureFixture):
    async def main() -> None:
        until(lambda: "blocks in one iteration" in caplog.text)

    run_debug(main())
    assert "context 'main': thread 'MainThread' blocks in one iteration" in caplog.text


@pytest.mark.parametrize("switch", [["-X", "dev"], []])
def test_the_switches_of_python(switch: list[str]):
    program = """
    import asyncio, threading, homebound

    async def main():
        return [each.name for each in threading.enumerate()]

    with homebound.IOThread("io") as io:
        print("stall-watch" in homebound.block_on(main(), io))
    print("stall-watch" in homebound.run(main()))
    """
    env = dict(os.environ) if switch else {**os.environ, "PYTHONASYNCIODEBUG": "1"}
    done = subprocess.run(
        [sys.executable, *switch, "-c", textwrap.dedent(program)],
        env=env, capture_output=True, text=True, timeout=50, check=True,
    )  # fmt: skip
    assert done.stdout == "True\nTrue\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_has_no_watch():
    program = """
    import logging, os, threading, homebound

    logging.getLogger("asyncio").setLevel(logging.ERROR)  # not how slow the machine is

    async def names():
        return [each.name for each in threading.enumerate()]

    async def main():
        pid = os.fork()
        if pid == 0:
            assert "stall-watch" in await_in_new_run()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    def await_in_new_run():
        seen = []
        thread = threading.Thread(target=lambda: seen.extend(homebound.run(names(), debug=True)))
        thread.start()
        thread.join()
        return seen

    homebound.run(main(), debug=True)
    print([each.name for each in threading.enumerate()])
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "['MainThread']\n", "")


# Streams and transports.


async def pair() -> tuple[asyncio.StreamReader, asyncio.StreamWriter, socket.socket]:
    """Return a stream of the running loop, and the socket at its other end."""
    mine, other = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=mine)
    return reader, writer, other


USES: dict[str, Callable[[Any, Any], Any]] = {
    "write": lambda _, writer: writer.write(b"data"),
    "writelines": lambda _, writer: writer.writelines([b"data"]),
    "write_eof": lambda _, writer: writer.write_eof(),
    "pause_reading": lambda _, writer: writer.transport.pause_reading(),
    "read": lambda reader, _: reader.read(1),
    "readline": lambda reader, _: reader.readline(),
    "readexactly": lambda reader, _: reader.readexactly(1),
    "readuntil": lambda reader, _: reader.readuntil(),
}


@pytest.mark.parametrize("name", USES)
def test_a_stream_of_another_home(name: str, io: IOThread):
    async def main() -> None:
        reader, writer, other = await pair()
        with other:
            async with on(io):
                with pytest.raises(WrongThread) as caught:
                    USES[name](reader, writer)
            assert f".{name}: the home of this " in str(caught.value)
            assert "is 'main', and it was used in thread 'io' (current context 'io')" in str(
                caught.value
            )
            writer.write(b"from home")
            assert other.recv(99) == b"from home"
            other.sendall(b"to home\n")
            assert await reader.readline() == b"to home\n"
            writer.close()
            await writer.wait_closed()

    run_debug(main())


def test_a_stream_of_a_server(io: IOThread):
    async def main() -> None:
        refused: list[BaseException] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async with on(io):
                for use in (lambda: reader.read(1), lambda: writer.write(b"x")):
                    try:
                        use()
                    except WrongThread as error:
                        refused.append(error)
            writer.write(await reader.readexactly(4))
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"echo")
            assert await reader.read() == b"echo"
            writer.close()
            await writer.wait_closed()
        assert len(refused) == 2

    run_debug(main())


def test_a_thread_without_a_home():
    async def main() -> None:
        _, writer, other = await pair()
        with other:
            with pytest.raises(WrongThread, match=r"SocketTransport\.write: .* is 'main'"):
                await asyncio.to_thread(writer.write, b"data")
            writer.close()
            await writer.wait_closed()

    run_debug(main())


def test_a_holder_of_the_big_lock_is_at_home():
    async def main() -> None:
        _, writer, other = await pair()

        def write() -> None:
            with homebound.big_lock:
                writer.write(b"stood in")

        with other:
            await asyncio.to_thread(write)
            assert other.recv(99) == b"stood in"
            writer.close()
            await writer.wait_closed()

    run_debug(main())


def test_datagrams_and_pipes(io: IOThread):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        datagrams, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
        )
        read_end, write_end = os.pipe()
        with os.fdopen(read_end, "rb") as readable, os.fdopen(write_end, "wb") as writable:
            pipe, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, writable)
            async with on(io):
                with pytest.raises(WrongThread, match=r"DatagramTransport\.sendto"):
                    datagrams.sendto(b"data", ("127.0.0.1", 9))
                with pytest.raises(WrongThread, match=r"WritePipeTransport\.write"):
                    pipe.write(b"data")
            pipe.write(b"data")
            assert readable.read(4) == b"data"
            datagrams.close()
            pipe.close()
            await asyncio.sleep(0)

    run_debug(main())


def test_without_debug_mode_nothing_looks():
    async def main() -> None:
        reader, writer, other = await pair()
        with other:
            assert type(reader) is asyncio.StreamReader
            assert not hasattr(writer.transport, "_homebound_check")
            writer.close()
            await writer.wait_closed()

    homebound.run(main())
