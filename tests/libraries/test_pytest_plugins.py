"""pytest-asyncio and anyio's pytest plugin: asynchronous tests on our loop."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

TESTS = """
import asyncio
import threading

import pytest

import homebound


@pytest.fixture
async def home():
    yield homebound.current_context()
    assert homebound.current_context() is not None


async def test_task(home):
    assert homebound.current_context() is home is homebound.main_context() is not None
    assert type(asyncio.current_task()) is homebound.Task
    assert homebound.block_on(asyncio.sleep(0.001, 7)) == 7


async def test_io_thread(home):
    async def name():
        return threading.current_thread().name

    async with homebound.IOThread("io") as io:
        assert await asyncio.gather(name(), io.spawn(name())) == ["MainThread", "io"]


async def test_wakes_from_a_thread():
    task = homebound.current_task()
    thread = threading.Thread(target=task.wake)
    thread.start()
    await homebound.suspend()
    thread.join()
"""
HOOK = """
import homebound

def pytest_asyncio_loop_factories():
    return {"homebound": homebound.new_event_loop}
"""
BACKEND = """
import homebound
import pytest

@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": homebound.new_event_loop}
"""
ASYNCIO = """
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
"""


def run_pytest(folder: Path, conftest: str, settings: str) -> str:
    (folder / "conftest.py").write_text(conftest)
    (folder / "test_it.py").write_text(TESTS)
    (folder / "pytest.ini").write_text(
        textwrap.dedent("[pytest]\nfilterwarnings = error\n") + settings
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-o", "timeout=30"],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_pytest_asyncio(tmp_path: Path):
    pytest.importorskip("pytest_asyncio")
    assert "3 passed" in run_pytest(tmp_path, HOOK, ASYNCIO)


def test_anyio_plugin(tmp_path: Path):
    pytest.importorskip("anyio")
    printed = run_pytest(tmp_path, BACKEND, "anyio_mode = auto\naddopts = -p no:asyncio\n")
    assert "3 passed" in printed
