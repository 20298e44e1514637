"""Programs that fork."""

from __future__ import annotations

import subprocess
import sys

_CHILD = """
import os, sys

def child(body, leave=os._exit):
    # Fork, call `body` in the child, and wait for it; it must leave with 0.
    pid = os.fork()
    if pid == 0:
        try:
            body()
        except BaseException as error:
            sys.stderr.write(f"in the child: {error!r}\\n")
            os._exit(1)
        leave(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, status

"""


def printed_by_forking(program: str, *options: str) -> str:
    """Return what a program prints; in it, `child(body)` forks and calls `body` in the child."""
    done = subprocess.run(
        # From 3.12 on Python warns of each fork in a process with threads, which is tested here.
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", *options,
         "-c", _CHILD + program],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
