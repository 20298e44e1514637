"""The commands in docs/serve.md, which the program must accept."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from homebound.cli._commands import serve

PAGE = Path(__file__).parents[2] / "docs" / "serve.md"
COMMANDS = re.findall(r"^(?:ExecStart=\S*/)?homebound serve (.*)$", PAGE.read_text(), re.MULTILINE)
OPTIONS = {option for parameter in serve.params for option in parameter.opts}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command(command: str):
    with serve.make_context("serve", shlex.split(command)) as context:
        assert context.params


def test_there_are_some():
    assert len(COMMANDS) >= 8


def test_every_option_that_is_named_exists():
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", PAGE.read_text())) <= OPTIONS
