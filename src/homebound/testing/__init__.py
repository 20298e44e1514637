"""The public test kit: deterministic time and order, settling, conformance suites, stress."""

from .._os.public_names import publish as _publish
from ._here import here as here
from ._leaks import no_leaks as no_leaks
from ._places import LoopThread as LoopThread
from ._places import Threads as Threads
from ._places import other_loops as other_loops
from ._stress import Stress as Stress
from ._suites.cases import Case as Case
from ._suites.disk_cases import check_disk as check_disk
from ._suites.disk_cases import disk_cases as disk_cases
from ._suites.executor_cases import check_executor as check_executor
from ._suites.executor_cases import executor_cases as executor_cases
from ._suites.lock_cases import check_lock as check_lock
from ._suites.lock_cases import lock_cases as lock_cases
from ._suites.loop_cases import check_loop as check_loop
from ._suites.loop_cases import loop_cases as loop_cases
from ._suites.queue_cases import check_queue as check_queue
from ._suites.queue_cases import queue_cases as queue_cases
from ._time.clock import VirtualClock as VirtualClock
from ._time.clock import virtual_clock as virtual_clock
from ._time.sequencer import SequenceBroken as SequenceBroken
from ._time.sequencer import Sequencer as Sequencer
from ._time.settle import settle as settle
from ._time.settle import settle_sync as settle_sync
from ._time.until import until as until

_publish(globals())
