"""asyncpg: a real PostgreSQL, pools, notifications, cancelled queries, homes, the big lock."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import homebound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from homebound import IOThread

    Run = Callable[..., Any]

asyncpg = pytest.importorskip("asyncpg")


def programs() -> Path | None:
    """The folder of initdb and pg_ctl; Debian keeps them off the PATH, by version."""
    found = shutil.which("pg_ctl")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists()), None)


def account() -> str | None:
    """The account to run the server as, since it refuses root. None: ours."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@pytest.fixture(scope="module")
def base() -> Iterator[dict[str, Any]]:
    """The arguments to connect to the tests' own cluster; it listens on a unix socket alone."""
    binaries = programs()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed")
    user = account()
    folder = Path(tempfile.mkdtemp(prefix="homebound-pg-"))
    if user is not None:
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)

    def call(program: str, *arguments: str) -> None:
        command = [str(binaries / program), "-D", f"{folder}/data", *arguments]
        subprocess.run(
            command, check=True, user=user, cwd=folder, timeout=50, stdout=subprocess.DEVNULL
        )

    try:
        call("initdb", "-U", "tester", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale", "C")
        options = f"-k {folder} -c listen_addresses='' -c fsync=off -c max_connections=40"
        call("pg_ctl", "-w", "-l", f"{folder}/log", "-o", options, "start")
        try:
            yield {"host": str(folder), "user": "tester", "database": "postgres"}
        finally:
            call("pg_ctl", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


async def one(base: dict[str, Any], query: str, *arguments: Any) -> Any:
    connection = await asyncpg.connect(**base)
    try:
        return await connection.fetchval(query, *arguments)
    finally:
        await connection.close()


def test_queries(run: Run, base: dict[str, Any]):
    async def main() -> None:
        connection = await asyncpg.connect(**base)
        await connection.execute("create temp table numbers (n int)")
        await connection.executemany("insert into numbers values ($1)", [(n,) for n in range(50)])
        assert await connection.fetchval("select sum(n) from numbers") == sum(range(50))
        with pytest.raises(asyncpg.UniqueViolationError):  # noqa: PT012
            async with connection.transaction():
                await connection.execute("create unique index on numbers (n)")
                await connection.execute("insert into numbers values (1)")
        async with connection.transaction():
            rows = [row["n"] async for row in connection.cursor("select n from numbers order by n")]
        assert rows == list(range(50))
        await connection.close()

    run(main())


def test_pool(run: Run, base: dict[str, Any]):
    async def main() -> None:
        async with asyncpg.create_pool(**base, min_size=1, max_size=3) as pool:
            queries = (pool.fetchval("select $1::int", number) for number in range(30))
            assert await asyncio.gather(*queries) == list(range(30))
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(pool.fetchval("select 1")) for _ in range(10)]
            assert sum(task.result() for task in tasks) == 10

    run(main())


def test_cancelled_and_timed_out_queries(run: Run, base: dict[str, Any]):
    async def main() -> None:
        async with asyncpg.create_pool(**base, min_size=1, max_size=1) as pool:
            with pytest.raises(TimeoutError):
                await pool.execute("select pg_sleep(3600)", timeout=0.05)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await pool.execute("select pg_sleep(3600)")
            assert await pool.fetchval("select 'usable'") == "usable"

    run(main())


def test_notifications(run: Run, base: dict[str, Any]):
    async def main() -> None:
        listener, speaker = await asyncpg.connect(**base), await asyncpg.connect(**base)
        heard: asyncio.Queue[str] = asyncio.Queue()
        await listener.add_listener("news", lambda *facts: heard.put_nowait(facts[-1]))
        await speaker.execute("select pg_notify('news', 'hello')")
        assert await heard.get() == "hello"
        await asyncio.gather(listener.close(), speaker.close())

    run(main())


def test_connections_in_several_homes(run: Run, base: dict[str, Any], io: IOThread, io2: IOThread):
    async def main() -> None:
        answers = await asyncio.gather(
            one(base, "select 0"),
            *(home.spawn(one(base, f"select {n}")) for n, home in enumerate((io, io2), start=1)),
        )
        assert answers == [0, 1, 2]
        slow = io.spawn(one(base, "select pg_sleep(3600)"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await slow
        assert slow.cancelled()

    run(main())


def test_pool_in_an_io_thread(run: Run, base: dict[str, Any], io: IOThread, io2: IOThread):
    async def main() -> None:
        pool = await io.spawn(open_pool())

        async def visit(number: int) -> Any:
            async with homebound.on(io.context):
                return await pool.fetchval("select $1::int", number)

        visits = [visit(1), visit(2), io2.spawn(visit(3))]
        assert await asyncio.gather(*visits) == [1, 2, 3]
        await io.spawn(pool.close())

    async def open_pool() -> Any:
        return await asyncpg.create_pool(**base, min_size=1, max_size=2)

    run(main())


def test_waiting_synchronously(run: Run, base: dict[str, Any]):
    async def main() -> None:
        connection = await asyncpg.connect(**base)
        assert homebound.block_on(connection.fetchval("select 1")) == 1  # in a running task

        def guest() -> Any:
            with homebound.big_lock:  # in another thread, over the main loop's connection
                return homebound.block_on(connection.fetchval("select 2"))

        assert await homebound.to_worker(guest) == 2
        await connection.close()

    run(main())
