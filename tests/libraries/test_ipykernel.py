"""ipykernel: cells that wait synchronously, on our loop; what works on the stock kernel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
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
    with started(manager) as made:
        yield made


@contextmanager
def started(manager: Any) -> Iterator[Kernel]:
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


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """The kernel that `homebound kernel install` writes, found by its name."""
    prefix = tmp_path_factory.mktemp("prefix")
    done = install("--prefix", prefix, "--name", "mine")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == prefix / "share" / "jupyter" / "kernels" / "mine"
    assert "jupyter kernelspec remove mine" in done.stderr
    specs = jupyter.kernelspec.KernelSpecManager(
        kernel_dirs=[str(prefix / "share" / "jupyter" / "kernels")], ensure_native_kernel=False
    )
    manager = jupyter.KernelManager(kernel_name="mine", kernel_spec_manager=specs)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert manager.kernel_spec.display_name == f"Python {version} (mine)"
    with started(manager) as made:
        yield made


def install(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("click")
    command = [sys.executable, "-m", "homebound", "kernel", "install", *map(str, arguments)]
    return subprocess.run(
        command, env={**os.environ, **env}, capture_output=True, text=True, timeout=50, check=False
    )


def test_installed_kernel(installed: Kernel):
    assert installed.execute(SYNCHRONOUS_API) == ("", "")
    assert installed.execute("api(1), await fetch(2)") == (
        "((1, 'MainThread'), (2, 'MainThread'))",
        "",
    )


def test_installed_for_the_user(tmp_path: Path):
    for _ in range(2):  # the second replaces the first
        done = install("--user", JUPYTER_DATA_DIR=str(tmp_path))
        assert done.returncode == 0, done.stderr
        assert Path(done.stdout.strip()) == tmp_path / "kernels" / "homebound"
    assert (tmp_path / "kernels" / "homebound" / "kernel.json").exists()


def test_wrong_arguments(tmp_path: Path):
    done = install("--user", "--prefix", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--user and --prefix are two places; choose one" in done.stderr
    done = install("--prefix", tmp_path, "--name", "a/b")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Invalid kernel name 'a/b'" in done.stderr
    assert not [*tmp_path.iterdir()]


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
