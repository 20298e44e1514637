"""The wakeup descriptor of signals, which a program may use for itself as well."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

HEAD = """
import asyncio, atexit, os, signal, socket, sys, threading, homebound
from homebound import big_lock
from homebound.testing import until

read, written = socket.socketpair()
read.setblocking(False)
written.setblocking(False)
atexit.register(read.close)
atexit.register(written.close)
OURS = written.fileno()

def own(fd=OURS):
    return signal.set_wakeup_fd(fd, warn_on_full_buffer=False)

def heard():
    try:
        return list(read.recv(100))
    except BlockingIOError:
        return []

def send(number=signal.SIGUSR1):
    os.kill(os.getpid(), number)

async def asleep():
    # Called in another thread: until the main loop is in a long sleep.
    until(lambda: homebound.main_context().loop._lenders)

USR1, USR2 = signal.SIGUSR1, signal.SIGUSR2
signal.signal(USR1, lambda *_: None)
"""


def run(program: str, *options: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", *options, "-c", HEAD + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.split("\n")[:-1]


@pytest.mark.parametrize("runner", ["homebound", "asyncio"])
@pytest.mark.parametrize("sleep", [0, 0.01, 0.3])
def test_the_programs_own_receives_the_signals(sleep: float, runner: str):
    """The program's descriptor gets each signal whatever the loop does, and is there afterwards."""
    lines = run(f"""
        own()
        async def main():
            timer = threading.Timer({sleep} / 2, send)
            if {sleep}:
                timer.start()
            else:
                send()
            await asyncio.sleep({sleep})
            if {sleep}:
                timer.join()  # late, on a busy machine
            got = []
            until(lambda: got.extend(heard()) or got)
            return got
        print({runner}.run(main()) == [USR1], own(-1) == OURS)
    """)
    assert lines == ["True True"]


def test_it_receives_what_wakes_the_loop():
    """The loop itself reads it, as with Twisted's, and has nothing else to do."""
    lines = run("""
        own()
        async def main():
            came = asyncio.Event()
            asyncio.get_running_loop().add_reader(read, came.set)
            with homebound.IOThread() as io:
                io.spawn(asleep()).add_done_callback(lambda _: send())
                await came.wait()
            return heard()
        print(homebound.run(main()) == [USR1], own(-1) == OURS)
    """)
    assert lines == ["True True"]


@pytest.mark.parametrize("selector", ["DefaultSelector", "SelectSelector"])
def test_a_signal_ends_a_long_sleep(selector: str):
    """Also if it is watched without the selector. No code of the program sees ours."""
    lines = run(f"""
        import selectors
        async def main():
            assert own(-1) == -1
            came = asyncio.Event()
            loop = asyncio.get_running_loop()
            signal.signal(USR1, lambda *_: loop.call_soon(came.set))
            with homebound.IOThread() as io:
                io.spawn(asleep()).add_done_callback(lambda _: send())
                await came.wait()
            assert own(-1) == -1
            return "ended"
        loop = homebound.new_event_loop(selectors.{selector}())
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            print(runner.run(main()))
        print(own(-1))
    """)
    assert lines == ["ended", "-1"]


@pytest.mark.parametrize("when", ["before", "during"])
def test_beside_handlers_of_the_loop(when: str):
    """asyncio takes the descriptor for them; the program's receives the signals all the same."""
    lines = run(f"""
        own()
        async def main():
            loop = asyncio.get_running_loop()
            came = asyncio.Queue()
            if {when!r} == "during":
                own(-1)
                own()
            loop.add_signal_handler(USR1, came.put_nowait, 1)
            loop.add_signal_handler(USR2, came.put_nowait, 2)
            send(), send(USR2)
            both = {{await came.get(), await came.get()}}
            await asyncio.sleep(0)
            assert both == {{1, 2}} and set(heard()) == {{USR1, USR2}}
            loop.remove_signal_handler(USR2)
            with homebound.IOThread() as io:
                io.spawn(asyncio.sleep(0.1)).add_done_callback(lambda _: send())
                assert await came.get() == 1
            await asyncio.sleep(0)
            assert heard() == [USR1]
            loop.remove_signal_handler(USR1)
            signal.signal(USR1, lambda *_: None)
            send()
            assert heard() == [USR1]
            return own() == OURS
        print(homebound.run(main()), own(-1) == OURS)
    """)
    assert lines == ["True True"]


def test_handlers_that_the_loop_closes_with():
    lines = run("""
        own()
        async def main():
            asyncio.get_running_loop().add_signal_handler(USR1, int)
            send()
        homebound.run(main())
        print(heard() == [USR1], own(-1) == OURS)
    """)
    assert lines == ["True True"]


def test_one_that_is_set_after_the_handlers():
    """The program's is not replaced. With asyncio, removing the last handler removes it."""
    lines = run("""
        async def main():
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(USR1, int)
            loop.add_signal_handler(USR2, int)
            own()
            loop.remove_signal_handler(USR1)
            assert own() == OURS
            loop.remove_signal_handler(USR2)
            return own() == OURS
        print(homebound.run(main()), own(-1) == OURS)
    """)
    assert lines == ["True True"]


def test_a_handler_that_cannot_be_added():
    lines = run("""
        own()
        async def main():
            loop = asyncio.get_running_loop()
            for number in (signal.SIGKILL, 12345):
                try:
                    loop.add_signal_handler(number, int)
                except (RuntimeError, ValueError):
                    assert own() == OURS
            return loop.remove_signal_handler(USR1)
        print(homebound.run(main()), own(-1) == OURS)
    """)
    assert lines == ["False True"]


@pytest.mark.parametrize("handlers", [False, True])
@pytest.mark.parametrize("sleep", [0, 0.2])
def test_one_that_was_closed_costs_nothing(sleep: float, handlers: bool):  # noqa: FBT001
    lines = run(f"""
        own()
        async def main():
            if {handlers}:
                asyncio.get_running_loop().add_signal_handler(USR1, int)
            written.close()
            await asyncio.sleep({sleep})
            if {handlers}:  # else CPython says that it cannot write, as with asyncio
                send()
            await asyncio.sleep({sleep})
            return "result"
        print(homebound.run(main()))
    """)
    assert lines == ["result"]


@pytest.mark.parametrize("handlers", [False, True])
def test_one_whose_number_is_another_files_now(handlers: bool):  # noqa: FBT001
    """The program set and closed it; writing signals into the other file would damage that."""
    lines = run(f"""
        import tempfile
        own()
        with tempfile.TemporaryFile() as file:
            async def main():
                loop = asyncio.get_running_loop()
                if {handlers}:
                    loop.add_signal_handler(USR1, int)
                def reuse():
                    written.close()
                    os.dup2(file.fileno(), OURS)
                    send()
                with homebound.IOThread() as io:
                    async def work():
                        if {handlers}:
                            await asyncio.sleep(0.1)
                        else:
                            await asleep()
                        reuse()
                    await io.spawn(work())
                await asyncio.sleep(0)
            homebound.run(main())
            print(own(-1), file.read())
            os.close(OURS)
    """)
    assert lines == ["-1 b''"]


@pytest.mark.parametrize("handlers", [False, True])
def test_one_whose_number_is_another_files_before_the_loop_looks(handlers: bool):  # noqa: FBT001
    """A file that blocks cannot be put back as the wakeup descriptor; main's result was lost."""
    lines = run(f"""
        import tempfile
        own()
        with tempfile.TemporaryFile() as file:
            async def main():
                written.close()
                os.dup2(file.fileno(), OURS)
                loop = asyncio.get_running_loop()
                if {handlers}:
                    loop.add_signal_handler(USR1, int)
                    send()
                await asyncio.sleep(0.2)
                if {handlers}:
                    loop.remove_signal_handler(USR1)
                return "result"
            print(homebound.run(main()), own(-1), file.read())
            os.close(OURS)
    """)
    assert lines == ["result -1 b''"]


def test_a_signal_handler_sets_its_own_in_the_sleep():
    lines = run("""
        async def main():
            came = asyncio.Event()
            loop = asyncio.get_running_loop()
            def handle(*_):
                own()
                loop.call_soon_threadsafe(came.set)
            signal.signal(USR1, handle)
            with homebound.IOThread() as io:
                io.spawn(asleep()).add_done_callback(lambda _: send())
                await came.wait()
            return own() == OURS
        print(homebound.run(main()), own(-1) == OURS)
    """)
    assert lines == ["True True"]


def test_an_exception_of_a_signal_handler_at_any_point():
    """The descriptor is restored, at once or as the run ends."""
    lines = run("""
        from homebound._aio.signals import HearingLoop
        codes = {getattr(HearingLoop, name).__code__
                 for name in ("_sleep_long", "_listen", "_listen_no_more")}
        left, where = -1, ""
        def trace(frame, event, _):
            global left, where
            if frame.f_code not in codes:
                return None
            frame.f_trace_opcodes = True
            if event == "opcode":
                left -= 1
                if left == -1:
                    where = frame.f_code.co_name, frame.f_lasti
                    raise KeyboardInterrupt
            return trace

        def interrupted(count):
            global left
            left, over = count, []
            async def main():
                loop, came = asyncio.get_running_loop(), asyncio.Event()
                def end_it():
                    until(lambda: loop._lenders or over)
                    over or loop.call_soon_threadsafe(came.set)
                thread = threading.Thread(target=end_it)
                thread.start()
                sys.settrace(trace)
                try:
                    await came.wait()
                finally:
                    sys.settrace(None)
                    over.append(True)
                    thread.join()
            try:
                homebound.run(main())
            except KeyboardInterrupt:
                return True
            finally:
                assert own() == OURS, where
            return left < 0
        own()
        interrupted(1 << 60)  # 3.12 tells of a function's bytecodes from its second call on
        count = 0
        while interrupted(count):
            count += 1
        print(count > 50)
    """)
    assert lines == ["True"]


def test_what_a_signal_handler_raises_in_a_nested_wait():
    """block_on waits for the cleanup then, and may sleep again before it is restored."""
    lines = run("""
        from homebound._aio.signals import HearingLoop
        code = HearingLoop._listen_no_more.__code__
        left, where = -1, ""
        def trace(frame, event, _):
            global left, where
            if frame.f_code is not code:
                return None
            frame.f_trace_opcodes = True
            if event == "opcode" and frame.f_locals["self"]._lenders:
                left -= 1
                if left == -1:
                    where = frame.f_lasti
                    raise KeyboardInterrupt
            return trace

        async def wait():
            try:
                await long_sleep()
            except asyncio.CancelledError:
                await long_sleep()

        async def long_sleep():
            # Until another thread has seen it, by its record of the program's descriptor.
            loop = asyncio.get_running_loop()
            before, woken, over = loop._lender, loop.create_future(), []
            def wake():
                until(lambda: (loop._lenders and loop._lender is not before) or over)
                over or loop.call_soon_threadsafe(lambda: woken.done() or woken.set_result(None))
            thread = threading.Thread(target=wake)
            thread.start()
            try:
                await woken
            finally:
                over.append(True)
                thread.join()

        def interrupted(count):
            global left
            async def main():
                global left
                left = count
                sys.settrace(trace)
                try:
                    homebound.block_on(wait())
                except KeyboardInterrupt:
                    pass
                finally:
                    sys.settrace(None)
                assert own() == OURS, where
                return left < 0
            return homebound.run(main())
        own()
        interrupted(1 << 60)  # 3.12 tells of a function's bytecodes from its second call on
        count = 0
        while interrupted(count):
            count += 1
        print(count > 20)
    """)
    assert lines == ["True"]


def test_a_forked_child_has_its_own():
    """The main thread sleeps, with its descriptor set, as another thread forks."""
    lines = run("""
        import warnings
        def fork():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # from 3.12 on: of forks beside threads
                pid = os.fork()
            if pid == 0:
                try:
                    assert own() == -1  # our numbers may be other files' by now
                    send()
                    assert heard() == [USR1]
                    os._exit(0)
                finally:
                    os._exit(1)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        async def main():
            with homebound.IOThread() as io:
                async def work():
                    await asleep()
                    return fork()
                assert await io.spawn(work()) == 0
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(USR1, int)
            return fork()
        print(homebound.run(main()), own(-1))
    """)
    assert lines == ["0 -1"]


def test_a_forked_child_leaves_its_parents_run():
    lines = run("""
        async def main():
            await asyncio.sleep(0.1)
            pid = os.fork()
            if pid == 0:
                own()
                return None
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        status = homebound.run(main())
        if status is None:
            os._exit(0 if own() == OURS else 1)
        print(status)
    """)
    assert lines == ["0"]


def test_a_loop_in_another_thread():
    """Such a loop handles no signals; asyncio says so, and the program's is left alone."""
    lines = run("""
        own()
        async def main():
            await asyncio.sleep(0.1)
            try:
                asyncio.get_running_loop().add_signal_handler(USR1, int)
            except RuntimeError:
                return "refused"
        thread = threading.Thread(target=lambda: print(homebound.run(main())))
        thread.start()
        thread.join()
        print(own(-1) == OURS)
    """)
    assert lines == ["refused", "True"]


def test_what_we_take_of_asyncios_private_parts():
    """The wakeup descriptor is one end of a socket pair; signal numbers arrive at the other."""
    lines = run("""
        loop = asyncio.SelectorEventLoop()
        assert loop._csock.getblocking() is loop._ssock.getblocking() is False
        data = []
        loop._process_self_data = data.append
        loop.add_signal_handler(USR1, int)
        assert list(loop._signal_handlers) == [USR1]
        assert own(loop._csock.fileno()) == loop._csock.fileno()
        send()
        loop.run_until_complete(asyncio.sleep(0.01))
        assert b"".join(data) == bytes([USR1])
        loop.remove_signal_handler(USR1)
        assert not loop._signal_handlers and own(-1) == -1
        loop.close()
        print(loop._csock, loop._ssock)
    """)
    assert lines == ["None None"]
