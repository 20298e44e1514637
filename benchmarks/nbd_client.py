"""NBD clients: the rate of reads, and the client's CPU time for each; and a whole copy.

qemu-nbd serves an image that is in the page cache on a Unix socket; the clients are programs of
their own (`nbd_clients/`): the peers are modules of other Pythons, libnbd of the system's, and
ovirt_imageio's of an environment that has it. NBD_PEERS, paths of Pythons joined by `:`, says where
to look for them, beside this Python and /usr/bin/python3.
"""

from __future__ import annotations

import functools
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ._harness import Case, Target
from .disks import MIB, serve, until_exit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Run = tuple[float, float]  # wall and CPU seconds of a request

_CLIENTS = Path(__file__).parent / "nbd_clients"
_MEMORY = Path("/dev/shm")  # noqa: S108 - where copies go, so that no disk is measured
_MODULES = {"libnbd": "nbd", "imageio": "ovirt_imageio"}


@functools.cache
def _python_of(who: str) -> str | None:
    """Return the Python that has a client's module."""
    if who == "homebound":
        return sys.executable
    others = [each for each in os.environ.get("NBD_PEERS", "").split(":") if each]
    for python in (*others, sys.executable, "/usr/bin/python3"):
        command = [python, "-c", f"import {_MODULES[who]}"]
        if shutil.which(python) is None:
            continue
        found = subprocess.run(command, capture_output=True, check=False)  # noqa: S603
        if not found.returncode:
            return python
    return None


def _read(who: str, size: int, depth: int, requests: int) -> Run:
    """Have a client read; return what a request took."""
    _, path = serve("qemu-nbd")
    script = _CLIENTS / ("ours.py" if who == "homebound" else f"{who}.py")
    command = [_python_of(who) or "", script, path, size, depth, requests]
    done = _run([str(part) for part in command])
    wall, cpu = map(float, done.split())
    return wall, cpu


def _copy(who: str, mib: int) -> Run:
    """Copy an image out of the server to a file in memory; the start of the program counts."""
    _, path = serve("qemu-nbd", mib * MIB)
    directory = _MEMORY if _MEMORY.is_dir() else path.parent
    uri, target = f"nbd+unix:///?socket={path}", directory / f"{path.parent.name}.copy"
    ours = [sys.executable, "-m", "homebound", "copy"]
    command = [*(ours if who == "homebound" else ["nbdcopy", "-C1"]), uri, str(target)]
    environment = _as_installed()
    wall, cpu = time.perf_counter(), _cpu_of_children()
    _run(command, environment)
    wall, cpu = time.perf_counter() - wall, _cpu_of_children() - cpu
    target.unlink()
    return wall / mib, cpu / mib


def _cpu_of_children() -> float:
    """Return the CPU seconds of all that have ended; os.times() counts them in ticks of 10 ms."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@functools.cache
def _as_installed() -> dict[str, str]:
    """Return an environment in which modules are compiled once, as those of an installed wheel are.

    Where a checkout may not keep what is compiled, half of the program's start would be that.
    """
    directory = until_exit.enter_context(tempfile.TemporaryDirectory())
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": directory}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    _run([sys.executable, "-m", "homebound", "copy", "memory:1M", "memory:1M"], environment)
    return environment


def _run(command: list[str], environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        message = f"{command} failed: {done.stdout}{done.stderr}"
        raise RuntimeError(message)
    return done.stdout


class _Twice:
    """A client whose every run is reported twice: as a sample of wall time, and of CPU time."""

    def __init__(self, run: Callable[[int], Run]) -> None:
        self._run = run
        self._cpu: dict[int, list[float]] = {}  # of the runs whose wall time was reported

    def wall(self, n: int) -> float:
        wall, cpu = self._run(n)
        self._cpu.setdefault(n, []).append(cpu)
        return wall

    def cpu(self, n: int) -> float:
        """Return the CPU time of the next of those runs, in their order."""
        return self._cpu[n].pop(0)


def _cases(name: str, n: int, runs: Mapping[str, Callable[[int], Run]], peer: str) -> list[Case]:
    """Return the cases of wall time and of CPU time, which share their runs."""
    twice = {who: _Twice(run) for who, run in runs.items()}
    target = (Target(peer, at_most=1),)
    return [
        Case(
            name, "wall time of a request", {w: each.wall for w, each in twice.items()}, n, target
        ),
        Case(
            f"{name}, CPU",
            "CPU time of the client for a request",
            {who: each.cpu for who, each in twice.items()},
            n,
            target,
        ),
    ]


def cases() -> list[Case]:
    """Return the cases whose peer is there; say why others are left out."""
    if shutil.which("qemu-nbd") is None:
        sys.stdout.write("skipped: there is no qemu-nbd\n")
        return []
    found = []
    for name, peer, size, depth, n in (
        ("read 4 KiB, 32 in flight", "libnbd", 4096, 32, 40_000),
        ("sequential read 256 KiB, one in flight", "imageio", 256 << 10, 1, 3_000),
    ):
        if _python_of(peer) is None:
            where = "NBD_PEERS, this Python or /usr/bin/python3"
            sys.stdout.write(f"skipped: no {_MODULES[peer]} in {where}\n")
            continue
        runs = {who: functools.partial(_read, who, size, depth) for who in ("homebound", peer)}
        found += _cases(name, n, runs, peer)
    if shutil.which("nbdcopy") is None:
        sys.stdout.write("skipped: there is no nbdcopy\n")
        return found
    runs = {who: functools.partial(_copy, who) for who in ("homebound", "nbdcopy")}
    return [*found, *_cases("copy 512 MiB, for each MiB", 512, runs, "nbdcopy")]
