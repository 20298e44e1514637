"""Run the benchmarks: `python -m benchmarks [names...] [--json FILE] [--rounds N]`.

Each file runs in a process of its own, so that what one leaves behind (a grown heap, a started
thread, an imported peer) does not count in the next; all variants of a case share that process.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ._harness import measure, report
from ._peers import environment, skipped

NAMES = (
    *("wake_burst", "post", "call_sync", "ping_pong", "hop", "to_worker", "step", "echo"),
    *("locks", "queues", "disks", "nbd_client"),
)

_LONGEST = 120  # seconds that a case may take before it is taken to hang


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for; 0 unless a benchmark failed."""
    options = _parse(arguments)
    names = options.names or NAMES
    if options.here:
        _run_here(names[0], options)
        return 0
    _say(_headline(options.rounds))
    for reason in skipped():
        _say(f"skipped: {reason}")
    cases: list[dict[str, Any]] = []
    failed = []
    for name in names:
        _say("")
        found = _run_apart(name, options)
        if found is None:
            failed.append(name)
        else:
            cases += found
    _say("\n" + _summary(cases))
    if options.json:
        everything = {
            **environment(),
            "rounds": options.rounds,
            "gc": not options.no_gc,
            "cases": cases,
        }
        options.json.write_text(json.dumps(everything, indent=1) + "\n")
    if failed:
        _say(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"one of {', '.join(NAMES)}")
    parser.add_argument("--json", type=Path, help="write every sample to this file")
    parser.add_argument("--rounds", type=int, default=9, help="how often each variant runs (9)")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="factor for the operations in a sample (1)"
    )
    parser.add_argument("--no-gc", action="store_true", help="no garbage collection in a sample")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    return options


def _run_here(name: str, options: argparse.Namespace) -> None:
    results = []
    for case in importlib.import_module(f"benchmarks.{name}").cases():
        faulthandler.dump_traceback_later(_LONGEST, exit=True)  # a lost wake-up: say where
        result = measure(case, rounds=options.rounds, scale=options.scale, no_gc=options.no_gc)
        _say(report(result))
        results.append(result.as_json())
    faulthandler.cancel_dump_traceback_later()
    if options.json:
        options.json.write_text(json.dumps(results))


def _run_apart(name: str, options: argparse.Namespace) -> list[dict[str, Any]] | None:
    """Run a benchmark in a process of its own; return None if it failed."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "results.json")
        command = [sys.executable, "-m", "benchmarks", name, "--here", "--json", str(file)]
        command += ["--rounds", str(options.rounds), "--scale", str(options.scale)]
        command += ["--no-gc"] if options.no_gc else []
        if subprocess.run(command, check=False).returncode:  # noqa: S603 - our own command line
            return None
        results: list[dict[str, Any]] = json.loads(file.read_text())
        return results


def _headline(rounds: int) -> str:
    facts = environment()
    versions = ", ".join(f"{name} {each}" for name, each in facts["versions"].items() if each)
    gil = "GIL" if facts["gil"] else "no GIL"
    return (
        f"{facts['cpu']} ({facts['cores']} cores), {facts['system']}\n"
        f"Python {facts['python'].split()[0]}, {gil}; {versions}\n"
        f"{rounds} rounds; medians, ratios paired within a round"
    )


def _summary(cases: list[dict[str, Any]]) -> str:
    """Return one line for each target."""
    lines = [f"{'':50} {'ours':>9} {'peer':>9} {'share':>7} {'faster':>7}  wanted"]
    for case in cases:
        for ratio in case["ratios"]:
            if not ratio["target"]:
                continue
            mine, theirs = (case["variants"][ratio[who]]["median_s"] for who in ("ours", "peer"))
            note = ratio["ours"].removeprefix("homebound")
            lines.append(
                f"{case['name'] + note + ' / ' + ratio['peer']:50.50} {mine * 1e6:7.2f}us "
                f"{theirs * 1e6:7.2f}us {ratio['share']:7.3f} {1 / ratio['share']:6.2f}x  "
                f"{ratio['target']} {'ok' if ratio['met'] else 'MISSED'}"
            )
    return "\n".join(lines)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
