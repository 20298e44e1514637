"""The wake-up protocols over all interleavings: each model holds, each planted bug is caught.

Each ``.pml`` file here describes one protocol: which code it models, what its variables stand
for, and which reordering each ``BROKEN_`` variant plants. Needs spin and a C compiler.

By hand: ``spin -a -DBROKEN_NO_PASS mailbox.pml && cc -O2 -DSAFETY -o pan pan.c && ./pan``, then
``spin -t -p -g -k mailbox.pml.trail -DBROKEN_NO_PASS mailbox.pml`` shows what it found.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SPIN = shutil.which("spin")
CC = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")

pytestmark = [
    pytest.mark.skipif(SPIN is None, reason="the model checker spin is not installed"),
    pytest.mark.skipif(CC is None, reason="no C compiler to build spin's verifier with"),
]

DEPTH = 10_000  # steps in one run; the longest takes some 370
TABLE_BITS = 21
MEGABYTES = 2048
LEVEL = "-O0"  # what -O2 saves in a search of a million states, it takes longer to compile

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
    ("biglock", ""),
    ("biglock", "TIMEOUTS=3"),
    ("biglock", "OTHERS=2 TIMEOUTS=0"),
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

# (model, options): no run goes round in circles. With the above: every run ends, and each end is a
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

LOST = "invalid end state"  # somebody sleeps for ever, with work to do; else: the claim that fails

# (model, options, planted bug, what pan must say of it)
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
    ("foreign", "", "BROKEN_CALL_BEFORE_CLEAR", LOST),
    ("foreign", "", "BROKEN_RAISE_LAST", LOST),
    ("foreign", "", "BROKEN_NO_PASS", LOST),
    ("foreign", "", "BROKEN_NO_LAST_LOOK", LOST),
    ("wakecell", "", "BROKEN_TEST_THEN_APPEND", "entries"),
    ("wakecell", "", "BROKEN_LOOK_BEFORE_PARK", "entries"),
    ("wakecell", "", "BROKEN_TOUCH_AFTER_PARK", "touching"),
    ("wakecell", "", "BROKEN_CELL_READ_AGAIN", "touching"),
    ("wakecell", "", "BROKEN_EMPTIED", "entries"),
    ("wakecell", "", "BROKEN_NEW_CELL_AT_SUSPEND", "entries"),
    ("biglock", "", "BROKEN_NO_SECOND_LOOK", LOST),
    ("biglock", "", "BROKEN_NO_THIRD_LOOK", LOST),
    ("biglock", "", "BROKEN_NO_TRY_WHEN_QUEUED", LOST),
    ("biglock", "", "BROKEN_HANDED_TIMES_OUT", LOST),
    ("biglock", "", "BROKEN_INTERRUPTED_IN_QUEUE", LOST),
    ("biglock", "", "BROKEN_NO_PASS", LOST),
    ("biglock", "", "BROKEN_UNPARK_BEFORE_GRANT", LOST),
    ("biglock", "", "BROKEN_UNPARKED_IS_GRANTED", "inside"),
    ("biglock", "", "BROKEN_HANDER_SETS_OWNER", "owner"),
    ("biglock", "", "BROKEN_BARGING", "seen"),
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


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(
        command, cwd=cwd, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"
    return done.stdout


def verify(model: str, options: str, tmp: Path, *, ends: bool = False) -> str:
    """Build the verifier of a model in `tmp`, run it until its first error, return its report."""
    assert SPIN is not None
    assert CC is not None
    defines = [f"-D{option}" for option in options.split()]
    told = run(SPIN, "-a", *defines, str(HERE / f"{model}.pml"), cwd=tmp)
    assert "rror" not in told, told
    build = ["-w", LEVEL, f"-DMEMLIM={MEGABYTES}", "-DNP" if ends else "-DSAFETY"]
    run(CC, *build, "-o", "pan", "pan.c", cwd=tmp)
    search = [f"-m{DEPTH}", f"-w{TABLE_BITS}", *(["-l"] if ends else [])]
    report = run(str(tmp / "pan"), *search, cwd=tmp)
    assert "max search depth too small" not in report, report
    return report


def errors(report: str) -> int:
    found = re.search(r"errors: (\d+)", report)
    assert found, report
    return int(found[1])


def assert_complete_and_clean(report: str) -> None:
    assert errors(report) == 0, report
    assert "Search not completed" not in report, report
    assert "out of memory" not in report, report


@pytest.mark.parametrize(("model", "options"), HOLDS)
def test_claims_hold_in_every_interleaving(model: str, options: str, tmp_path: Path) -> None:
    report = verify(model, options, tmp_path)
    assert_complete_and_clean(report)
    assert re.search(r"assertion violations\s+\+", report), report
    assert re.search(r"invalid end states\s+\+", report), report


@pytest.mark.parametrize(("model", "options"), ENDS)
def test_every_interleaving_ends(model: str, options: str, tmp_path: Path) -> None:
    report = verify(model, options, tmp_path, ends=True)
    assert_complete_and_clean(report)
    assert re.search(r"non-progress cycles\s+\+", report), report


@pytest.mark.parametrize(("model", "options", "bug", "said"), CAUGHT)
def test_planted_bug_is_caught(
    model: str, options: str, bug: str, said: str, tmp_path: Path
) -> None:
    report = verify(model, f"{options} {bug}", tmp_path)
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
