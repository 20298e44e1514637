"""FsspecDisk over HTTP, from a server on loopback that fails in every way servers do."""

from __future__ import annotations

import errno
import random
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from homebound import run
from homebound.block import DiskError, FsspecDisk, ImageError
from homebound.testing import check_disk

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("aiohttp")
asyn = pytest.importorskip("fsspec.asyn")
asyn.get_loop()  # a thread and a loop that fsspec makes once, and keeps

SIZE = 3_000_001
DATA = random.Random(8).randbytes(SIZE)
BLOCK = 64 << 10
RANGE = re.compile(r"bytes=(\d+)-(\d+)")


class Server(ThreadingHTTPServer):
    """Serves one file; `faults` has what the next requests for ranges meet."""

    daemon_threads = False
    block_on_close = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data = DATA
        self.etag = '"one"'
        self.faults: list[str] = []
        self.ranges: list[tuple[int, int]] = []
        self.hidden: set[str] = set()  # headers that it does not send
        self.ignores_ranges = False
        self.heads = True
        self.release = threading.Event()  # the end of those that hang

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients leave in the middle."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/disk.img"


class Handler(BaseHTTPRequestHandler):
    """A request."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 20

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def begin(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name not in self.server.hidden:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def do_HEAD(self) -> None:
        if not self.server.heads:
            self.begin(405, Content_Length="0")
        elif self.path != "/disk.img":
            self.begin(404, Content_Length="0")
        else:
            length = str(len(self.server.data))
            self.begin(200, Content_Length=length, ETag=self.server.etag)

    def do_GET(self) -> None:
        server = self.server
        found = RANGE.fullmatch(self.headers.get("Range", ""))
        if self.path != "/disk.img":
            self.begin(404, Content_Length="0")
            return
        if found is None or server.ignores_ranges:
            self.begin(200, Content_Length=str(len(server.data)), ETag=server.etag)
            self.send(server.data)
            return
        start, last = int(found[1]), int(found[2])
        server.ranges.append((start, last + 1 - start))
        fault = server.faults.pop(0) if server.faults else ""
        if fault.isdigit():
            self.begin(int(fault), Content_Length="0")
            return
        if fault == "hang":
            server.release.wait(20)
            self.close_connection = True
            return
        part = server.data[start : last + 1]
        where = f"bytes {start}-{start + len(part) - 1}/{len(server.data)}"
        self.begin(206, Content_Length=str(len(part)), Content_Range=where, ETag=server.etag)
        if fault == "truncate":
            self.send(part[: len(part) // 2])
            self.close_connection = True
        elif fault == "slow":
            for at in range(0, len(part), 8192):
                self.send(part[at : at + 8192])
                time.sleep(0.01)
        else:
            self.send(part)

    def send(self, data: bytes) -> None:
        try:
            self.wfile.write(data)
        except OSError:
            self.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        server.shutdown()
        server.server_close()
        thread.join()


def opened(server: Server, **options: Any) -> FsspecDisk:
    return FsspecDisk(server.url, **({"block_size": BLOCK, "timeout": 10.0} | options))


def test_is_a_disk(server: Server):
    server.data = DATA[:200_001]
    check_disk(lambda: opened(server, cache_size=4 * BLOCK))


def test_reads(server: Server):
    async def main() -> None:
        with await FsspecDisk.open(server.url, block_size=BLOCK, read_ahead=BLOCK * 4) as disk:
            assert disk.size == SIZE
            assert await disk.read(0, SIZE) == DATA
            assert await disk.read(SIZE - 10, 10) == DATA[-10:]

    run(main())
    assert max(length for _, length in server.ranges) == 4 * BLOCK


@pytest.mark.parametrize("fault", ["503", "429", "truncate", "slow", "hang"])
def test_faults_that_pass(server: Server, fault: str):
    with opened(server, timeout=2.0) as disk:
        server.faults += [fault] * 2
        assert run(disk.read(100, 1000)) == DATA[100:1100]
    assert len(server.ranges) == (1 if fault == "slow" else 3)


@pytest.mark.parametrize(("fault", "text"), [("404", "no such file"), ("403", "answered 403")])
def test_final_answers(server: Server, fault: str, text: str):
    with opened(server) as disk:
        server.faults.append(fault)
        with pytest.raises(DiskError, match=text):
            run(disk.read(0, 10))
        assert len(server.ranges) == 1
        assert run(disk.read(0, 10)) == DATA[:10]


def test_given_up(server: Server):
    with opened(server, retries=2) as disk:
        server.faults += ["503"] * 3
        with pytest.raises(
            DiskError, match=r"\(tried 3 times\): the server answered 503"
        ) as caught:
            run(disk.read(0, 10))
        assert caught.value.errno == errno.EIO
        assert len(server.ranges) == 3


def test_ranges_are_ignored(server: Server):
    server.ignores_ranges = True
    with opened(server) as disk, pytest.raises(DiskError, match="support range requests"):
        run(disk.read(BLOCK, 10))


def test_changed(server: Server):
    with opened(server) as disk:
        run(disk.read(0, 10))
        server.data, server.etag = bytes(SIZE), '"two"'
        with pytest.raises(DiskError, match='ETag was "one", is "two"') as caught:
            run(disk.read(BLOCK, 10))
        assert caught.value.errno == errno.ESTALE


def test_shorter_and_ranges_are_ignored(server: Server):
    """The whole of what there is now is as long as the range that was asked for."""
    server.hidden.add("ETag")
    with opened(server) as disk:
        server.data, server.ignores_ranges = bytes(BLOCK), True
        with pytest.raises(DiskError, match=f"size was {SIZE}, is {BLOCK}"):
            run(disk.read(BLOCK, 10))


def test_no_head(server: Server):
    server.heads = False
    with opened(server) as disk:
        assert run(disk.read(5, 10)) == DATA[5:15]


def test_refused(server: Server):
    with pytest.raises(ImageError, match="there is no such file") as caught:
        FsspecDisk(f"{server.url}.gone")
    assert caught.value.errno == errno.ENOENT
    url = server.url
    server.shutdown()
    server.server_close()
    with pytest.raises(ImageError, match="cannot open 'http://127"):
        FsspecDisk(url, timeout=2.0)
