"""Run the tests of one module in this process: python run_module.py MODULE REPORT [option...].

Writes a line of JSON to REPORT when a test begins and one when it has ended, so the report of a
process that hangs or dies ends where it stopped. --stock leaves asyncio's own loops in place,
--skip-file holds patterns of tests not to run, --only names one to run.
"""

from __future__ import annotations

import argparse
import faulthandler
import fnmatch
import importlib
import json
import signal
import sys
import time
import unittest
from pathlib import Path
from typing import Any, TextIO

TEST_LIMIT = 30.0  # seconds: the stacks of all threads are then shown, and the process ends

Outcome = str  # passed, failed, skipped


def loops_made() -> int:
    module = sys.modules.get("substitute")
    return 0 if module is None else int(module.loops_made)


class Recorder(unittest.TestResult):
    """A result that records each test's outcome. A test fails if one of its subtests does."""

    def __init__(self, report: TextIO) -> None:
        super().__init__()
        self.report = report
        self.outcome: Outcome = "passed"
        self.detail = ""
        self.began = 0.0
        self.loops = 0

    def write(self, **line: Any) -> None:
        self.report.write(json.dumps(line) + "\n")
        self.report.flush()

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802
        super().startTest(test)
        self.outcome, self.detail = "passed", ""
        self.began, self.loops = time.monotonic(), loops_made()
        faulthandler.dump_traceback_later(TEST_LIMIT, exit=True)
        self.write(begin=name_of(test))

    def stopTest(self, test: unittest.TestCase) -> None:  # noqa: N802
        super().stopTest(test)
        faulthandler.cancel_dump_traceback_later()
        self.write(
            end=name_of(test),
            outcome=self.outcome,
            detail=self.detail,
            seconds=round(time.monotonic() - self.began, 3),
            ours=loops_made() > self.loops,
        )

    def fail(self, test: Any, error: Any) -> None:
        text = self._exc_info_to_string(error, test)  # type: ignore[attr-defined]
        if isinstance(test, unittest.TestCase):
            self.outcome = "failed"
            self.detail += text
        else:  # setUpModule, setUpClass and the like are reported without beginning
            self.write(end=str(test), outcome="failed", detail=text, seconds=0.0, ours=False)

    def addError(self, test: Any, err: Any) -> None:  # noqa: N802
        self.fail(test, err)

    def addFailure(self, test: Any, err: Any) -> None:  # noqa: N802
        self.fail(test, err)

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:  # noqa: ARG002, N802
        if err is not None:
            self.fail(test, err)

    def addSkip(self, test: Any, reason: str) -> None:  # noqa: N802
        if isinstance(test, unittest.TestCase) and self.outcome == "passed":
            self.outcome, self.detail = "skipped", reason

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:  # noqa: ARG002, N802
        self.outcome, self.detail = "failed", "passed, although its author expects it to fail"


def name_of(test: unittest.TestCase) -> str:
    """Return the test's name as in the exclusions: module, class and test."""
    return test.id().removeprefix("test.test_asyncio.")


def flat(suite: Any) -> list[unittest.TestCase]:
    if isinstance(suite, unittest.TestCase):
        return [suite]
    return [test for part in suite for test in flat(part)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("module")
    parser.add_argument("report", type=Path)
    parser.add_argument("--stock", action="store_true")
    parser.add_argument("--skip-file", type=Path)
    parser.add_argument("--only", action="append")
    options = parser.parse_args()
    faulthandler.enable()
    # A shell starts its background jobs with SIGINT ignored; these tests interrupt themselves.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not options.stock:
        importlib.import_module("substitute").install()
    importlib.import_module("test.support").verbose = 0  # type: ignore[attr-defined]
    own = (Path(__file__).parent / f"{options.module}.py").exists()
    name = options.module if own else f"test.test_asyncio.{options.module}"
    loader = unittest.TestLoader()
    tests = flat(loader.loadTestsFromModule(importlib.import_module(name)))
    skipped = options.skip_file.read_text().splitlines() if options.skip_file else []
    wanted = [
        test
        for test in tests
        if (not options.only or name_of(test) in options.only)
        and not any(fnmatch.fnmatchcase(name_of(test), pattern) for pattern in skipped)
    ]
    with options.report.open("a") as report:
        recorder = Recorder(report)
        unittest.TestSuite(wanted).run(recorder)
        recorder.write(finished=True)


if __name__ == "__main__":
    main()
