"""The wake-up protocols over all interleavings: each model holds, each planted bug is caught.

Each ``.pml`` file here describes one protocol: which code it models, what its variables stand
for, and which reordering each ``BROKEN_`` variant plants. Needs spin and a C compiler.

By hand: ``spin -a -DBROKEN_NO_PASS mailbox.pml && cc -O2 -DSAFETY -o pan pan.c && ./pan``, then
``spin -t -p -g -k mailbox.pml.trail -DBROKEN_NO_PASS mailbox.pml`` shows what it found.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent

_spec = importlib.util.spec_from_file_location("verifier", HERE / "verifier.py")
assert _spec is not None
assert _spec.loader is not None
verifier: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(verifier)
Check = verifier.Check

pytestmark = [
    pytest.mark.exhaustive,
    # A check takes seconds of a core, and minutes where the cores are shared.
    pytest.mark.timeout(600),
    pytest.mark.skipif(verifier.SPIN is None, reason="the model checker spin is not installed"),
    pytest.mark.skipif(verifier.CC is None, reason="no C compiler to build spin's verifier with"),
]

# (model, options): every claim in the file's header holds in every interleaving.
HOLDS = [
    ("mailbox", ""),
    ("mailbox", "PRODUCERS=1 ITEMS=3"),
    ("mailbox", "CLOSING"),
    ("mailbox", "CLOSING PRODUCERS=3 ITEMS=1"),
    ("bell", ""),
    ("bell", "PRODUCERS=3 ITEMS=1"),
    ("foreign", ""),
    ("foreign", "PRODUCERS=1 ITEMS=3"),
    ("wakecell", ""),
    ("wakecell", "WAKERS=2 CALLS=2"),
    ("wakecell", "WAKERS=2 CALLS=2 SUSPENSIONS=3"),
    ("wakecell", "COMPLETES WAKERS=2"),
    ("wakecell", "COMPLETES WAKERS=1 CALLS=2"),
    ("biglock", ""),
    ("biglock", "TIMEOUTS=2"),
    ("biglock", "BACK"),
    ("biglock", "BACK TIMEOUTS=0 EXCEPTIONS=2"),
    ("biglock", "OTHERS=2 TIMEOUTS=0 EXCEPTIONS=0"),
    ("biglock", "THREADS=2 ROUNDS=3 OTHERS=3"),
    ("standin", ""),
    ("standin", "STANDINS=2 HOLDS=1"),
    ("standin", "BELL"),
    ("standin", "WAITS"),
    ("standin", "WAITS BELL"),
    ("standin", "WAITS STANDINS=2 HOLDS=1 PRODUCERS=1"),
    ("waitqueue", ""),
    ("waitqueue", "CANCELS=2 DEATHS=0"),
    ("waitqueue", "CANCELS=0 DEATHS=2"),
    ("waitqueue", "UNTOLD"),
    ("waitqueue", "THREADS=2 ROUNDS=3 OTHERS=3 CANCELS=2 DEATHS=1"),
    ("vcpu", "DEEDS=0 ASKS=2"),
    ("vcpu", "DEEDS=0 STOPS ASKS=2"),
    ("vcpu", "DEEDS=0 LATE"),
    ("vcpu", "CPUS=3 DEEDS=0 NO_KICK"),
    ("vcpu", "NO_EXCLUSIVE"),
    ("vcpu", "NO_ITEM NO_PAUSE"),
    ("vcpu", "NO_ITEM NO_KICK"),
    ("vcpu", "NO_KICK NO_PAUSE"),
    ("vcpu", "OTHERS=0 DEEDS=2 NO_KICK NO_PAUSE"),
    ("vcpu", "ONE_ITEM OTHERS=2"),
]

# (model, options): no run goes on forever. With the above: every run ends, and each end is a
# good one, so every item is run and every waiter served.
ENDS = [
    ("mailbox", "CLOSING"),
    ("bell", ""),
    ("foreign", ""),
    ("wakecell", ""),
    ("biglock", ""),
    ("standin", "WAITS"),
    ("waitqueue", "THREADS=2 OTHERS=2"),
    ("vcpu", "DEEDS=0"),
    ("vcpu", "ONE_ITEM OTHERS=2"),
]

LOST = "invalid end state"  # a process sleeps forever, with work to do; else: the claim that fails

# (model, options, planted bug, the error that pan must report)
CAUGHT = [
    ("mailbox", "", "BROKEN_LOOK_BEFORE_RAISE", LOST),
    ("mailbox", "", "BROKEN_WRITE_BEFORE_CLEAR", LOST),
    ("mailbox", "", "BROKEN_LOOK_BEFORE_APPEND", LOST),
    ("mailbox", "", "BROKEN_NO_PASS", LOST),
    ("mailbox", "", "BROKEN_INTERRUPTED", LOST),
    ("mailbox", "", "BROKEN_NO_CLEAR", "window"),
    ("mailbox", "CLOSING", "BROKEN_CLOSED_UNDER_ASLEEP", LOST),
    ("mailbox", "CLOSING", "BROKEN_CLOSE_NO_PASS", LOST),
    ("mailbox", "CLOSING", "BROKEN_CLOSE_FD", "fd_closed"),
    ("bell", "", "BROKEN_LOOK_BEFORE_RAISE", LOST),
    ("bell", "", "BROKEN_LOOK_BEFORE_APPEND", LOST),
    ("bell", "", "BROKEN_NO_PASS", LOST),
    ("bell", "", "BROKEN_CLOSE_NO_PASS", LOST),
    ("bell", "", "BROKEN_SAME_BELL", LOST),
    ("bell", "", "BROKEN_TEST_THEN_CLEAR", "written"),
    ("foreign", "", "BROKEN_LOOK_BEFORE_APPEND", LOST),
    ("foreign", "", "BROKEN_SAME_BELL", LOST),
    ("foreign", "", "BROKEN_RAISE_LAST", LOST),
    ("foreign", "", "BROKEN_NO_PASS", LOST),
    ("foreign", "", "BROKEN_NO_LAST_LOOK", LOST),
    ("wakecell", "", "BROKEN_TEST_THEN_APPEND", "entries"),
    ("wakecell", "", "BROKEN_LOOK_BEFORE_SUSPENDED", "entries"),
    ("wakecell", "", "BROKEN_TOUCH_AFTER_SUSPENDED", "touching"),
    ("wakecell", "", "BROKEN_CELL_READ_AGAIN", "touching"),
    ("wakecell", "", "BROKEN_EMPTIED", "entries"),
    ("wakecell", "", "BROKEN_NEW_CELL_AT_SUSPEND", "entries"),
    ("wakecell", "COMPLETES WAKERS=1", "BROKEN_PASSED_OVER", "entries"),
    ("wakecell", "COMPLETES WAKERS=1", "BROKEN_NOT_RENEWED", "wait"),
    ("wakecell", "COMPLETES WAKERS=1", "BROKEN_RENEWED_UNSEEN", "entries"),
    ("wakecell", "COMPLETES WAKERS=1", "BROKEN_LEFT_LOSES", "raised"),
    ("biglock", "", "BROKEN_LOOK_BEFORE_APPEND", LOST),
    ("biglock", "", "BROKEN_PARKER_AFTER_LOOK", LOST),
    ("biglock", "", "BROKEN_NO_WAKE", LOST),
    ("biglock", "", "BROKEN_LEAVES_UNTOLD", LOST),
    ("biglock", "", "BROKEN_TIMEOUT_STAYS", "q_len"),
    ("biglock", "", "BROKEN_UNPARKED_IS_TURN", "inside"),
    ("biglock", "", "BROKEN_INTERRUPTED_STAYS", LOST),
    ("biglock", "", "BROKEN_INTERRUPTED_UNTOLD", LOST),
    ("biglock", "", "BROKEN_RELEASE_CUT_SHORT", LOST),
    ("biglock", "BACK", "BROKEN_BACK_TWICE", "q_len"),
    ("biglock", "BACK", "BROKEN_BACK_RAISES", "inside"),
    ("standin", "", "BROKEN_NO_REARM", LOST),
    ("standin", "", "BROKEN_LOOK_BEFORE_REARM", LOST),
    ("standin", "", "BROKEN_NO_WRITE", LOST),
    ("standin", "", "BROKEN_NO_PASS", LOST),
    ("standin", "", "BROKEN_RUN_BEFORE_ACQUIRE", "holder"),
    ("standin", "BELL", "BROKEN_NO_REARM", LOST),
    ("standin", "BELL", "BROKEN_LOOK_BEFORE_REARM", LOST),
    ("standin", "BELL", "BROKEN_NO_PASS", LOST),
    ("standin", "WAITS", "BROKEN_NOT_WATCHING", LOST),
    ("standin", "WAITS", "BROKEN_WATCHES_LATE", LOST),
    ("standin", "WAITS", "BROKEN_WAITS_WITHOUT_LOOK", LOST),
    ("standin", "WAITS", "BROKEN_GIVES_WAY_RAISED", "attended"),
    ("waitqueue", "", "BROKEN_LOOK_BEFORE_GIVE", LOST),
    ("waitqueue", "", "BROKEN_TRY_BEFORE_JOIN", LOST),
    ("waitqueue", "", "BROKEN_NO_PASS", LOST),
    ("waitqueue", "", "BROKEN_BARGING", "seen"),
    ("waitqueue", "", "BROKEN_GRANT_AFTER_GUARD", "granted|waiters"),
    ("waitqueue", "", "BROKEN_WAKE_BEFORE_GRANT", "granted"),
    ("waitqueue", "", "BROKEN_CANCELLED_KEEPS", "q_len"),
    ("waitqueue", "", "BROKEN_CANCELLED_GIVES", "stock"),
    ("waitqueue", "UNTOLD", "BROKEN_DEAD_STAYS", "q_len"),
    ("waitqueue", "", "BROKEN_DEAD_KEEPS", "q_len"),
    ("waitqueue", "", "BROKEN_LEFT_TWICE", "stock"),
    ("vcpu", "DEEDS=0", "BROKEN_GRANTED_OVER_GUESTS", "running"),
    ("vcpu", "CPUS=3 DEEDS=0 NO_KICK NO_PAUSE", "BROKEN_BARGING", LOST),
    ("vcpu", "DEEDS=0", "BROKEN_CLAIM_SILENT", LOST),
    (
        "vcpu",
        "CPUS=3 DEEDS=0 OTHERS=2 EACH_ITS_OWN NO_KICK NO_PAUSE NO_ITEM",
        "BROKEN_LET_IN_FOR_GOOD",
        LOST,
    ),
    ("vcpu", "DEEDS=0 LATE", "BROKEN_CLEARS_LATE", LOST),
    ("vcpu", "NO_EXCLUSIVE", "BROKEN_BACK_IS_FRESH", LOST),
    ("vcpu", "DEEDS=0", "BROKEN_FRESH_IS_CLEAR", LOST),
    ("vcpu", "DEEDS=0", "BROKEN_HALTS_ANYWAY", LOST),
    ("vcpu", "DEEDS=0", "BROKEN_WAKE_FIRST", LOST),
    ("vcpu", "DEEDS=0", "BROKEN_GRANT_UNTOLD", LOST),
    ("vcpu", "DEEDS=0", "BROKEN_LEFT_UNTOLD", LOST),
    ("vcpu", "DEEDS=0", "BROKEN_LOOK_BEFORE_ENTER", LOST),
    ("vcpu", "", "BROKEN_WAITS_INSIDE", LOST),
    ("vcpu", "NO_KICK NO_PAUSE", "BROKEN_WAITS_DEAF", LOST),
    ("vcpu", "ONE_ITEM OTHERS=2", "BROKEN_KEEPS_TURN", LOST),
    ("vcpu", "ONE_ITEM OTHERS=3", "BROKEN_PASSES_TURN_ONCE", LOST),
    ("vcpu", "NO_ITEM NO_KICK", "BROKEN_PAUSED_IN_QUEUE", "paused"),
    (
        "vcpu",
        "DEEDS=0 OTHERS=2 STOPS NO_KICK NO_PAUSE NO_EXCLUSIVE",
        "BROKEN_ENDS_ON_OLD_LOOK",
        "q_len",
    ),
]


class Verifiers:
    """The process that runs the checks one after the other, and its reports so far."""

    def __init__(self, checks: list[Any], folder: Path) -> None:
        self.outcomes: dict[Any, Any] = {}
        self.process = subprocess.Popen(
            [sys.executable, HERE / "verifier.py"],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # the processes it has started end with it
        )
        assert self.process.stdin is not None
        with self.process.stdin as stdin:
            json.dump(checks, stdin)

    def report(self, check: Any) -> str:
        """Wait for the report of one check."""
        assert self.process.stdout is not None
        while check not in self.outcomes:
            line = self.process.stdout.readline()
            assert line, f"the verifiers' process has ended before {check}"
            done, outcome = json.loads(line)
            self.outcomes[Check(*done)] = verifier.Outcome(*outcome)
        report, trouble = self.outcomes[check]
        assert not trouble, trouble
        return str(report)

    def end(self) -> None:
        """End the checks that no test waits for."""
        assert self.process.stdout is not None
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def verifiers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Verifiers]:
    """The verifiers, started with the checks of all selected tests, in their order."""
    checks = [
        item.callspec.params["report"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.getparent(pytest.Module) is request.node
        if "report" in item.fixturenames
    ]
    running = Verifiers(checks, tmp_path_factory.mktemp("verifiers"))
    yield running
    running.end()


@pytest.fixture
def report(request: pytest.FixtureRequest, verifiers: Verifiers) -> str:
    """Return what the verifier of this test's check has reported."""
    text = verifiers.report(request.param)
    assert "max search depth too small" not in text, text
    return text


def errors(report: str) -> int:
    found = re.search(r"errors: (\d+)", report)
    assert found, report
    return int(found[1])


def assert_complete_and_clean(report: str) -> None:
    assert errors(report) == 0, report
    assert "Search not completed" not in report, report
    assert "out of memory" not in report, report


@pytest.mark.parametrize("report", [Check(*each) for each in HOLDS], indirect=True, ids=str)
def test_claims_hold_in_every_interleaving(report: str) -> None:
    assert_complete_and_clean(report)
    assert re.search(r"assertion violations\s+\+", report), report
    assert re.search(r"invalid end states\s+\+", report), report


@pytest.mark.parametrize(
    "report", [Check(*each, ends=True) for each in ENDS], indirect=True, ids=str
)
def test_every_interleaving_ends(report: str) -> None:
    assert_complete_and_clean(report)
    assert re.search(r"non-progress cycles\s+\+", report), report


@pytest.mark.parametrize(
    ("report", "said"),
    [(Check(model, f"{options} {bug}".strip()), said) for model, options, bug, said in CAUGHT],
    indirect=["report"],
    ids=str,
)
def test_planted_bug_is_caught(report: str, said: str) -> None:
    assert errors(report) >= 1, report
    assert re.search(rf"^pan:1: .*{said}", report, re.MULTILINE), report


@pytest.mark.parametrize("model", sorted({model for model, _ in HOLDS}))
def test_every_planted_bug_is_listed(model: str) -> None:
    text = (HERE / f"{model}.pml").read_text(encoding="utf-8")
    header, code = text.split("*/", 1)
    listed = {bug for name, _, bug, _ in CAUGHT if name == model}
    assert set(re.findall(r"BROKEN_\w+", header)) == listed
    assert set(re.findall(r"BROKEN_\w+", code)) == listed


def test_every_model_is_checked() -> None:
    files = {path.stem for path in HERE.glob("*.pml")}
    assert files == {model for model, _ in HOLDS} == {model for model, _ in ENDS}
