"""The leak check of conftest.py catches what it is there for, in the test that is at fault."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

LEAKY = """
import os, socket, threading, time

class Grumpy:
    def __del__(self):
        raise ValueError

def test_thread():
    threading.Thread(target=time.sleep, args=[3], daemon=True).start()

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

def test_thread_about_to_end_is_no_leak():
    threading.Thread(target=time.sleep, args=[0.01]).start()

def test_nothing():
    pass
"""
NO_LEAK = {"test_thread_about_to_end_is_no_leak", "test_nothing"}


@pytest.mark.slow
def test_leaks_fail(pytester: pytest.Pytester):
    pytester.makeconftest((Path(__file__).parent / "conftest.py").read_text())
    pytester.makepyfile(test_leaky=LEAKY)
    report = pytester.runpytest_subprocess("-rfE", "-W", "error").stdout.str()
    at_fault = set(re.findall(r"^(?:FAILED|ERROR) test_leaky\.py::(\w+)", report, re.MULTILINE))
    assert at_fault == set(re.findall(r"def (test_\w+)", LEAKY)) - NO_LEAK
