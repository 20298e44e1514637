"""A worker thread wakes a task of the main loop, with and without the big lock.

Without the big lock the worker is no home, so the task is queued and the main thread runs it. With
the big lock the worker stands in for the main thread, and the task runs inside `wake()`.
"""

from __future__ import annotations

import threading

import homebound


def here() -> str:
    return threading.current_thread().name


async def connect(*, worker_has_lock: bool) -> list[str]:
    trace = []
    task = homebound.current_task()
    assert task is not None

    def worker() -> None:
        if worker_has_lock:
            with homebound.big_lock:
                task.wake()
                trace.append(f"wake() returned in {here()}")
        else:
            task.wake()
            trace.append(f"wake() returned in {here()}")

    thread = threading.Thread(target=worker, name="worker")
    thread.start()
    await homebound.suspend()  # a wake that comes before this is kept
    trace.append(f"the task went on in {here()}")
    await homebound.to_worker(thread.join)
    return trace


async def main() -> None:
    without = await connect(worker_has_lock=False)
    print("without the big lock:", *sorted(without), sep="\n  ")
    assert "the task went on in MainThread" in without

    with_lock = await connect(worker_has_lock=True)
    print("with the big lock:", *with_lock, sep="\n  ")
    assert with_lock == ["the task went on in worker", "wake() returned in worker"]


if __name__ == "__main__":
    homebound.run(main())
