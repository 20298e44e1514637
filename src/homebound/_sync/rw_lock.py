"""RWLock: many readers or one writer, in the order in which they came."""

from __future__ import annotations

from _thread import start_new_thread as start_thread
from typing import TYPE_CHECKING, Any, NoReturn

from .._threads.block_on import block_on
from .holders import SharedHold, all_known, record_of, record_of_caller, watched
from .reacquire import Reacquires
from .wait_queue import DONE, WaitQueue

if TYPE_CHECKING:
    from types import CoroutineType

    from .holders import Record
    from .waiters import Waiter

READ, WRITE = "read", "write"


_NOT_ACQUIRED = (
    "is not acquired, and cannot be released: `async with rw.read():` or `rw.write()` in a task, "
    "`with` in a thread"
)


class RWLock(Reacquires, SharedHold, WaitQueue):
    """A lock held by many readers at a time, or by one writer.

    `async with rw.read():` and `async with rw.write():` in a task, `with` in a thread. FIFO:
    readers next to each other in the queue acquire it together, and a reader that comes while a
    writer waits queues behind it, so neither kind starves. Not recursive. Like Lock, it has no
    owner.

    >>> import homebound
    >>> rw = homebound.RWLock()
    >>> async def main():
    ...     async with rw.write():
    ...         rw.downgrade()
    ...         async with rw.read():
    ...             return repr(rw).rpartition(" ")[2]
    >>> homebound.run(main())
    '[readers:2]>'

    Called from: any thread.
    """

    __slots__ = (
        "_holders",  # records of its holders, kept while a watch is on; else unset. See holders.py
        "_owners",
        "_unheld",
    )

    _shows_holders = True

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self._owners = 0  # how many readers hold it; -1: a writer. Under the guard
        self._unheld: list[None] = []

    if not TYPE_CHECKING:

        def __enter__(self) -> NoReturn:
            message = (
                f"{self._titled()} is acquired for reading or for writing: `async with rw.read():` "
                "or `async with rw.write():` in a task, `with` in a thread"
            )
            raise TypeError(message)

        def __exit__(self, *_error: object) -> None:
            """Never reached."""

        __aenter__ = __enter__
        __aexit__ = __exit__

    def read(self) -> Side:
        """Return a context manager for `async with` or `with` that holds the lock for reading.

        Called from: any thread.
        """
        return Side(self, READ)

    def write(self) -> Side:
        """Return a context manager for `async with` or `with` that holds the lock for writing.

        Called from: any thread.
        """
        return Side(self, WRITE)

    async def acquire_read(self) -> bool:
        """Acquire it for reading, waiting as long as it takes; True.

        Called from: task.
        """
        if not self._acquire_now(READ):
            await self._wait(READ)
        return True

    async def acquire_write(self) -> bool:
        """Acquire it for writing, waiting as long as it takes; True.

        Called from: task.
        """
        if not self._acquire_now(WRITE):
            await self._wait(WRITE)
        return True

    def acquire_read_sync(self, timeout: float | None = None) -> bool:
        """Acquire it for reading in this thread; False after `timeout` seconds.

        A home's loop keeps turning meanwhile, as in `block_on`.

        Called from: any thread.
        """
        return self._acquire_now(READ) or self._wait_sync(timeout, READ) is not None

    def acquire_write_sync(self, timeout: float | None = None) -> bool:
        """Acquire it for writing in this thread; False after `timeout` seconds.

        A home's loop keeps turning meanwhile, as in `block_on`.

        Called from: any thread.
        """
        return self._acquire_now(WRITE) or self._wait_sync(timeout, WRITE) is not None

    def _acquire_now(self, want: str) -> bool:
        taken = False
        try:
            with self._guard:
                taken = not self._waiters and self._take_as(want)
        except BaseException:  # a signal handler raised as the guard was released
            if taken:
                self.release()
            raise
        return taken

    def release(self) -> None:
        """Release it, as reader or as writer, and hand it over to the next waiters.

        Raises RuntimeError if it is free.

        Called from: any thread.
        """
        try:
            with self._guard:
                if not self._owners:
                    raise RuntimeError(f"{self._titled()} {_NOT_ACQUIRED}")  # noqa: TRY301
                # A finaliser may release it under this guard, or a signal handler raise: no call
                # between the look and the change.
                self._owners -= 1 if self._owners > 0 else -1
            self._serve()
        except BaseException:
            try:
                self._serve()
            except BaseException:  # noqa: BLE001  (no stack here: the first one is raised)
                start_thread(self._serve, ())
            raise

    _plain_release = release

    @watched(release)
    def _watched_release(self) -> None:
        with self._guard:
            self._holder_list().drop(record_of_caller(scoped=False)[0])
        self._plain_release()

    def downgrade(self) -> None:
        """Turn the writer that holds it into a reader; readers next in the queue acquire it too.

        No other writer holds it in between. Raises RuntimeError if no writer holds it.

        Called from: any thread.
        """
        try:
            with self._guard:
                if self._owners >= 0:
                    message = (
                        f"{self._titled()}.downgrade(): no writer holds it; it comes after "
                        "acquire_write(), or in `with rw.write():`"
                    )
                    raise RuntimeError(message)  # noqa: TRY301
                self._owners = 1
            self._serve()
        except BaseException:
            try:
                self._serve()
            except BaseException:  # noqa: BLE001  (no stack here: the first one is raised)
                start_thread(self._serve, ())
            raise

    async def upgrade(self) -> bool:
        """Turn the calling reader into a writer; True if no other writer held it in between.

        This happens at once if there is no other reader and no waiter. Else it releases the lock
        and queues behind the waiters, some of which may write: then it returns False, and what was
        read before may be stale. If cancelled, it is a reader again before CancelledError is
        raised. Raises RuntimeError if no reader holds it.

        Called from: task.
        """
        if self._upgrade_now():
            return True
        try:
            await self._wait(WRITE, joined=self.release)
        except GeneratorExit as error:
            self._leads_out(error)
            raise
        except BaseException:
            await self._reacquire(self.acquire_read)
            raise
        return False

    def upgrade_sync(self, timeout: float | None = None) -> bool:
        """Do `upgrade` in this thread; after `timeout` seconds, TimeoutError, as a reader again.

        Called from: any thread.
        """
        if self._upgrade_now():
            return True
        if self._turns_home():
            return bool(block_on(self.upgrade(), timeout=timeout))
        waiter = None
        try:
            waiter = self._wait_parked(timeout, WRITE, self.release)
        finally:
            if waiter is None:
                self._reacquire_sync(self.acquire_read_sync)
        if waiter is None:
            message = (
                f"{self._titled()} could not be upgraded in {timeout} s: others hold it or were "
                "first; this thread is a reader again"
            )
            raise TimeoutError(message)
        return False

    def _upgrade_now(self) -> bool:
        with self._guard:
            if self._owners <= 0:
                message = (
                    f"{self._titled()}.upgrade(): no reader holds it; it comes after "
                    "acquire_read(), or in `with rw.read():`"
                )
                raise RuntimeError(message)
            if self._owners > 1 or self._waiters:
                return False
            self._owners = -1
            return True

    def locked(self) -> bool:
        """Return True while it is held, by readers or a writer.

        Called from: any thread.
        """
        return self._owners != 0

    def _take(self, waiter: Waiter) -> bool:
        owners = self._owners
        if waiter.want is READ and owners >= 0:
            self._owners = owners + 1
        elif waiter.want is WRITE and not owners:
            self._owners = -1
        else:
            return False
        waiter.granted = True
        return True

    _plain_take = _take

    @watched(_take)
    def _watched_take(self, waiter: Waiter) -> bool:
        if not self._plain_take(waiter):
            return False
        record = record_of(waiter)
        if record is not None:
            self._holder_list().add(record)
        return True

    def _take_as(self, want: str) -> bool:
        if want is READ and self._owners >= 0:
            self._owners += 1
        elif want is WRITE and not self._owners:
            self._owners = -1
        else:
            return False
        return True

    _plain_take_as = _take_as

    @watched(_take_as)
    def _watched_take_as(self, want: str) -> bool:
        if not self._plain_take_as(want):
            return False
        self._holder_list().add(record_of_caller(scoped=False))
        return True

    def _give_back(self, waiter: Waiter) -> None:
        self._owners -= 1 if self._owners > 0 else -1
        waiter.left = True

    _plain_give_back = _give_back

    @watched(_give_back)
    def _watched_give_back(self, waiter: Waiter) -> None:
        self._holder_list().drop(waiter.who)
        self._plain_give_back(waiter)

    # For the watched twins.

    def _note_scoped_holder(self) -> None:
        """Record that the caller has acquired it by `with`."""
        record = record_of_caller(scoped=True)
        with self._guard:
            self._holder_list().replace(record[0], record)

    def _note_waited_sync(self, waiter: Waiter) -> None:
        with self._guard:
            self._holder_list().replace(waiter.who, record_of_caller(scoped=False))

    def _known_holders(self, want: Any) -> tuple[Record, ...]:
        known = self._recorded()
        owners = self._owners
        if want is READ and owners > 0:
            return ()  # readers keep no reader out
        return known if all_known(known, abs(owners)) else ()

    def _held_inside(self, manager: object, want: Any) -> bool:
        if not isinstance(manager, Side) or manager._lock is not self:
            return False
        return self._keeps_out(manager._want, want)

    def _keeps_out(self, held: Any, want: Any) -> bool:
        return WRITE in (held, want)

    def _describe(self) -> str:
        owners = self._owners
        return "unlocked" if not owners else "writing" if owners < 0 else f"readers:{owners}"


class Side:
    """A context manager that holds one side of an RWLock: reading or writing."""

    __slots__ = ("_lock", "_want")

    def __init__(self, lock: RWLock, want: str) -> None:
        self._lock = lock
        self._want = want

    def __aenter__(self) -> CoroutineType[Any, Any, None]:
        lock = self._lock
        return DONE if lock._acquire_now(self._want) else lock._wait(self._want)  # type: ignore[return-value]

    @watched(__aenter__)
    def _watched_aenter(self) -> CoroutineType[Any, Any, None]:
        if not self._lock._acquire_now(self._want):
            return self._watched_enter_waiting()  # type: ignore[return-value]
        self._lock._note_scoped_holder()
        return DONE

    async def _watched_enter_waiting(self) -> None:
        await self._lock._wait(self._want)
        self._lock._note_scoped_holder()

    def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: object
    ) -> CoroutineType[Any, Any, None]:
        if error is None or not self._lock._ends_unheld(error):
            self._lock.release()
        return DONE

    def __enter__(self) -> None:
        if not self._lock._acquire_now(self._want):
            self._lock._wait_sync(None, self._want)

    _plain_enter = __enter__

    @watched(__enter__)
    def _watched_enter(self) -> None:
        self._plain_enter()
        self._lock._note_scoped_holder()

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: object
    ) -> None:
        if error is None or not self._lock._ends_unheld(error):
            self._lock.release()
