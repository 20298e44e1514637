"""ipykernel: cells that wait synchronously, on our loop; what works on the stock kernel."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("ipykernel")
jupyter = pytest.importorskip("jupyter_client")

# A kernel spec's argv before "-f {connection_file}".
OURS = """
import asyncio, homebound
asyncio.set_event_loop(homebound.new_event_loop())
from ipykernel.kernelapp import launch_new_instance
launch_new_instance()
"""
STOCK = "from ipykernel.kernelapp import launch_new_instance; launch_new_instance()"
SYNCHRONOUS_API = """
import asyncio, threading
import homebound

async def fetch(value):
    await asyncio.sleep(0.001)
    return value, threading.current_thread().name

def api(value, *where):
    return homebound.block_on(fetch(value), *where)
"""


class Kernel:
    """A kernel in a process of its own, and the results of its cells."""

    def __init__(self, manager: Any, client: Any) -> None:
        self.manager = manager
        self.client = client

    def execute(self, code: str, *, interrupt_at: str | None = None) -> tuple[str, str]:
        """Return what the cell printed or answered, and its error's name and text."""
        shown: list[str] = []

        def hear(message: dict[str, Any]) -> None:
            content = message["content"]
            shown.append(content.get("text") or content.get("data", {}).get("text/plain", ""))
            if interrupt_at is not None and interrupt_at in shown[-1]:
                os.kill(self.manager.provisioner.pid, signal.SIGINT)

        reply = self.client.execute_interactive(
            code, timeout=30, output_hook=hear, allow_stdin=False
        )["content"]
        error = f"{reply['ename']}: {reply['evalue']}" if reply["status"] == "error" else ""
        return "".join(shown), error


@contextmanager
def kernel(source: str) -> Iterator[Kernel]:
    command = [sys.executable, "-c", source, "-f", "{connection_file}"]
    spec = jupyter.kernelspec.KernelSpec(argv=command, display_name="test", language="python")
    manager = jupyter.KernelManager(kernel_name="test")
    manager._kernel_spec = spec
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=30)
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()
        manager.context.destroy()


# Made before a test looks for leaks: jupyter_client keeps a thread and sockets of its own.
@pytest.fixture(scope="module")
def ours() -> Iterator[Kernel]:
    with kernel(OURS) as made:
        assert made.execute(SYNCHRONOUS_API) == ("", "")
        yield made


@pytest.fixture(scope="module")
def stock() -> Iterator[Kernel]:
    with kernel(STOCK) as made:
        assert made.execute(SYNCHRONOUS_API) == ("", "")
        yield made


def test_our_loop(ours: Kernel):
    # A synchronous call in a cell waits for asynchronous work in the kernel's own thread.
    assert ours.execute("api(1)") == ("(1, 'MainThread')", "")
    assert ours.execute("await fetch(2)") == ("(2, 'MainThread')", "")
    assert ours.execute("api(3), await fetch(4), api(5)[0]") == (
        "((3, 'MainThread'), (4, 'MainThread'), 5)",
        "",
    )
    # A task that an earlier cell has started goes on while a later one waits.
    assert ours.execute("started = asyncio.create_task(fetch(6)); None") == ("", "")
    assert ours.execute("homebound.block_on(started)") == ("(6, 'MainThread')", "")
    # I/O threads beside it.
    assert ours.execute("io = homebound.IOThread('io').start()") == ("", "")
    assert ours.execute("api(7, io.context), await io.spawn(fetch(8))") == (
        "((7, 'io'), (8, 'io'))",
        "",
    )
    _, error = ours.execute("api(1 / 0)")
    assert error == "ZeroDivisionError: division by zero"


def test_interrupt_while_waiting(ours: Kernel):
    cell = "print('waiting', flush=True)\nhomebound.block_on(asyncio.sleep(3600))"
    _, error = ours.execute(cell, interrupt_at="waiting")
    assert error.startswith("KeyboardInterrupt")
    assert ours.execute("api('alive')[0]") == ("'alive'", "")


def test_stock_loop(stock: Kernel):
    # Its loop cannot run inside itself: the error says what to do.
    _, error = stock.execute("api(1)")
    assert error.startswith("ContextError: block_on: there is no context to run it in; name one")
    # An I/O thread can, in any kernel.
    assert stock.execute("io = homebound.IOThread('io').start()") == ("", "")
    assert stock.execute("api(2, io.context), await io.spawn(fetch(3))") == (
        "((2, 'io'), (3, 'io'))",
        "",
    )
    # Also once the kernel's loop is attached, for work that runs there.
    attach = "here = homebound.AioContext.attach(asyncio.get_running_loop()); None"
    assert stock.execute(attach) == ("", "")
    assert stock.execute("api(4, io.context), await io.spawn(fetch(5))") == (
        "((4, 'io'), (5, 'io'))",
        "",
    )
    assert stock.execute("await here.spawn(fetch(6))") == ("(6, 'MainThread')", "")


BACKGROUND = """
background = homebound.Background("lib")
answer = background.sync(fetch)

@background.sync
async def pages():
    for number in range(3):
        yield await fetch(number)
"""


@pytest.mark.parametrize("which", ["ours", "stock"])
def test_background(which: str, request: pytest.FixtureRequest):
    """A library with a synchronous face, in any kernel: no patch, and no special import."""
    notebook: Kernel = request.getfixturevalue(which)
    assert notebook.execute(BACKGROUND) == ("", "")
    assert notebook.execute("answer(1), await background.spawn(fetch(2)), list(pages())[2]") == (
        "((1, 'lib'), (2, 'lib'), (2, 'lib'))",
        "",
    )
    cell = "print('waiting', flush=True)\nbackground.block_on(asyncio.sleep(3600))"
    _, error = notebook.execute(cell, interrupt_at="waiting")
    assert error.startswith("KeyboardInterrupt")
    assert notebook.execute("answer('alive')[0]") == ("'alive'", "")
    assert notebook.execute("await background.astop(); background") == (
        "<Background 'lib' stopped>",
        "",
    )
