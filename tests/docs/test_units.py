"""The systemd units of the pages: systemd accepts them, and the command takes their options."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from homebound.cli._serve_command import serve

PAGE = Path(__file__).parents[2] / "docs" / "serve.md"
UNITS = dict(
    re.findall(
        r"^# /etc/systemd/system/(\S+)\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
)


def start_command() -> list[str]:
    (line,) = re.findall(r"^ExecStart=(.*)$", UNITS["disk.service"], re.MULTILINE)
    return shlex.split(line)


def test_the_command_takes_the_options():
    program, name, *arguments = start_command()
    assert (Path(program).name, name) == ("homebound", "serve")
    context = serve.make_context(name, list(arguments))
    assert context.params["tls_required"]
    assert arguments[-1] in str(context.params)


def test_systemd_accepts_them(tmp_path: Path):
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze")
    paths = []
    for name, text in UNITS.items():
        paths.append(tmp_path / name)
        # The program must exist; this one always does.
        paths[-1].write_text(text.replace(start_command()[0], "/bin/sh"))
    result = subprocess.run(
        [analyze, "verify", *paths], capture_output=True, text=True, check=False
    )
    said = [line for line in result.stderr.splitlines() if line.startswith(tuple(UNITS))]
    assert (result.returncode, said) == (0, [])  # other units of the machine may have faults
