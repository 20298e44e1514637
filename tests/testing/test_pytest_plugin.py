"""The pytest plugin: leaks fail the test, and fixtures and marker work as documented."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from homebound._aio.futures import has_gil

pytest_plugins = ["pytester"]

CONFTEST = 'pytest_plugins = ["homebound.testing.pytest_plugin"]'

LEAKY = """
import os, socket, sys, threading, time
import homebound

class Grumpy:
    def __del__(self):
        raise ValueError

kept = []

def test_thread():
    threading.Thread(target=threading.Event().wait, daemon=True).start()

def test_descriptor():
    os.pipe()

def test_socket():
    socket.socket()

def test_error_in_a_thread():
    thread = threading.Thread(target=int, args=["x"])
    thread.start()
    thread.join()

def test_error_in_a_finaliser():
    grumpy = Grumpy()
    grumpy.me = grumpy

def test_context():
    kept.append(homebound.new_event_loop())

def test_task():
    loop = homebound.new_event_loop()
    kept.append(loop.create_task(homebound.suspend()))
    kept.append(loop)

def test_big_lock():
    homebound.big_lock.acquire()

def test_nothing_since_the_lock_is_released():
    homebound.big_lock.release()

def test_thread_about_to_end_is_no_leak():
    threading.Thread(target=time.sleep, args=[0.01]).start()

def test_nothing(iothread, threads, virtual_clock):
    io = iothread()
    threads.start(homebound.block_on, homebound.to_worker(int), io.context).result(10)
"""
NO_LEAK = {
    "test_nothing_since_the_lock_is_released",
    "test_thread_about_to_end_is_no_leak",
    "test_nothing",
}

MARKED = """
import pytest

def test_not_asked():
    open(0, closefd=False)
    leak.append(__import__("os").pipe())

leak = []

@pytest.mark.no_leaks
def test_asked():
    leak.append(__import__("os").pipe())
"""

USERS = """
import asyncio, threading
import homebound
import pytest

@pytest.fixture
def word():
    return "word"

@pytest.mark.homebound
async def test_async(word, io):
    assert word == "word"
    assert homebound.current_context() is homebound.main_context()
    async with homebound.on(io.context):
        assert threading.current_thread().name == "io"

@pytest.mark.homebound(debug=True)
class TestMarkedAsAWhole:
    async def test_debug(self):
        assert asyncio.get_running_loop().get_debug()

    def test_not_async(self):
        assert homebound.current_context() is None

@pytest.mark.homebound
async def test_an_hour(virtual_clock):
    await asyncio.sleep(3600)
    assert virtual_clock.now() == 3600.0

@pytest.mark.homebound
async def test_that_fails():
    assert await asyncio.sleep(0, False)

def test_io_threads(iothread, io, threads):
    other = iothread("other", poll_max_ns=1000)
    assert homebound.block_on(asyncio.sleep(0, other.name), other.context) == "other"
    assert threads.start(lambda: io.name).result(10) == "io"

def test_stress(stress):
    stress.thread(stress.count, "here")
    stress.wait()
    assert stress.counts["here"] == 1
    assert stress.seed == 7
"""


LONG = """
import gc, weakref
import pytest

class Node:
    pass

kept = [Node()]
kept[0].me = kept[0]
gone = weakref.ref(kept[0])

@pytest.mark.parametrize("number", range(300))
def test(number):
    if number == 50:
        assert gc.get_freeze_count()
        kept.clear()

def test_at_last():
    assert gone() is None
"""

_AUTOLOAD = "PYTEST_DISABLE_PLUGIN_AUTOLOAD"


@pytest.fixture
def pytester(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Pytester without other installed plugins: loading those would be most of a run."""
    monkeypatch.setenv(_AUTOLOAD, "1")
    return pytester


def outcomes(pytester: pytest.Pytester, *options: str) -> dict[str, set[str]]:
    """Return the test names by outcome: FAILED and ERROR, as in pytest's summary."""
    report = pytester.runpytest_subprocess("-rfE", "-p", "no:asyncio", *options).stdout.str()
    found: dict[str, set[str]] = {"FAILED": set(), "ERROR": set()}
    for outcome, name in re.findall(r"^(FAILED|ERROR) .*::(\w+)", report, re.MULTILINE):
        found[outcome].add(name)
    assert re.search(r"^=+ .*(passed|failed).* in .* =+$", report, re.MULTILINE), report
    return found


@pytest.mark.slow
def test_leaks_fail(pytester: pytest.Pytester):
    pytester.makeconftest(CONFTEST)
    pytester.makeini("[pytest]\nhomebound_no_leaks = true")
    pytester.makepyfile(test_leaky=LEAKY)
    found = outcomes(
        pytester, "-W", "error::ResourceWarning"
    )  # a socket's message that it was not closed
    assert found["ERROR"] == set(re.findall(r"def (test_\w+)", LEAKY)) - NO_LEAK
    assert not found["FAILED"]


def test_leaks_fail_where_the_test_is_marked(pytester: pytest.Pytester):
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_marked=MARKED)
    found = outcomes(pytester, "--strict-markers")
    assert found == {"FAILED": set(), "ERROR": {"test_asked"}}


def test_objects_frozen_during_a_test_are_no_leak(pytester: pytest.Pytester):
    """They are frozen, and a frozen cycle is not collected."""
    pytester.makeconftest(CONFTEST)
    pytester.makeini("[pytest]\nhomebound_no_leaks = true")
    pytester.makepyfile(test_long=LONG)
    assert outcomes(pytester) == {"FAILED": set(), "ERROR": set()}


def test_fixtures_and_marker(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOMEBOUND_STRESS_SECONDS", "0.01")
    monkeypatch.setenv("HOMEBOUND_SEED", "7")
    pytester.makepyfile(test_users=USERS)
    found = outcomes(
        pytester, "-p", "homebound.testing.pytest_plugin", "--strict-markers", "-W", "error"
    )
    assert found == {"FAILED": {"test_that_fails"}, "ERROR": set()}


@pytest.mark.parametrize("asked", [True, False])
def test_a_race_shows_its_seed_and_what_it_counted(
    asked: bool,  # noqa: FBT001
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
):
    """The summary is shown if a length was set for races, and only then."""
    monkeypatch.setenv("HOMEBOUND_SEED", "7")
    monkeypatch.delenv("HOMEBOUND_STRESS_SECONDS", raising=False)
    if asked:
        monkeypatch.setenv("HOMEBOUND_STRESS_SECONDS", "0.01")
    pytester.makepyfile(
        test_race="def test(stress):\n"
        "    for place in ('here', 'there', 'here'):\n"
        "        stress.thread(stress.count, f'been {place}')\n"
        "    stress.stop()\n"
        "    stress.wait()\n"
    )
    options = "-p", "homebound.testing.pytest_plugin", "-p", "no:asyncio"
    report = pytester.runpytest_subprocess(*options).stdout.str()
    assert ("test_race.py::test: seed 7, 0.01 s: 2 been here, 1 been there" in report) is asked
    assert ("homebound stress" in report) is asked


@pytest.mark.skipif(not has_gil(), reason="Hypothesis warns on builds with a GIL alone")
@pytest.mark.parametrize("plugin", ["homebound.testing.pytest_plugin", "no:homebound"])
def test_a_frozen_generator_of_hypothesis_causes_no_warning(plugin: str, pytester: pytest.Pytester):
    pytester.makeini("[pytest]\nfilterwarnings = error")
    pytester.makepyfile(
        "import gc, random\n"
        "from hypothesis import register_random\n"
        "generators = [random.Random()]\n"
        "def test():\n"
        "    gc.freeze()\n"
        "    register_random(generators[0])\n"
        "    gc.unfreeze()\n"
    )
    options = "-p", plugin, "-p", "no:asyncio", "-p", "no:cacheprovider"
    report = pytester.runpytest_subprocess(*options)
    report.assert_outcomes(**{"passed" if plugin.endswith("pytest_plugin") else "failed": 1})


def test_nothing_is_loaded_without_being_asked_for(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv(_AUTOLOAD)
    pytester.makepyfile(
        "def test(request):\n"
        "    plugins = request.config.pluginmanager.get_plugins()\n"
        "    names = [getattr(each, '__name__', type(each).__module__) for each in plugins]\n"
        "    assert '_pytest.python' in names\n"
        "    assert not [name for name in names if name.startswith('homebound')]\n"
    )
    assert pytester.runpytest_subprocess().ret == 0


def test_the_first_callback_of_ctypes_is_no_leak():
    """Many builds of libffi open a file of their own then, once in a process, and keep it."""
    program = (
        "import ctypes, homebound.testing\n"
        "with homebound.testing.no_leaks():\n"
        "    ctypes.CFUNCTYPE(None)(print)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=50)


def test_the_kit_needs_no_pytest():
    program = (
        "import sys; sys.modules['pytest'] = None\n"
        "import homebound.testing\n"
        "with homebound.testing.virtual_clock(), homebound.testing.no_leaks():\n"
        "    pass\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=50)
