"""`homebound serve URI`: another server's export, served as ours."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import MIB, SIZE, Served
from .programs import TIMEOUT, need, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Serve = Callable[..., Served]
Refused = Callable[..., str]
pytestmark = pytest.mark.peers

FLAGS = ("read_only", "can_flush", "can_fua", "can_trim", "can_fast_zero", "rotational")


@contextmanager
def remote(kind: str, image: Path, *options: object) -> Iterator[str]:
    """Run a server of an image; its URI."""
    place = image.with_suffix(".remote")
    place.unlink(missing_ok=True)
    commands = {
        "qemu": ("qemu-nbd", "-f", "raw", "-t", "-e", "8", "-k", place, *options, image),
        "nbdkit": ("nbdkit", "-f", "-U", place, *options, "file", image),
        "ours": (sys.executable, "-m", "homebound", "serve", image, "--unix", place, *options),
    }
    need(str(commands[kind][0]))
    with running(place, *commands[kind]) as uri:
        yield uri


def run(*command: object) -> str:
    """Run another program; return its output, after checking that it succeeded."""
    need(str(command[0]))
    done = subprocess.run(
        [str(each) for each in command],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def told(uri: str) -> dict[str, Any]:
    """Return what nbdinfo says of an export."""
    (export,) = json.loads(run("nbdinfo", "--json", uri))["exports"]
    return {key.removeprefix("is_"): value for key, value in export.items()}


@pytest.mark.parametrize("kind", ["qemu", "nbdkit", "ours"])
def test_clients_see_the_disk_of_the_other_server(
    serve: Serve, holed: Path, tmp_path: Path, kind: str
):
    copy = tmp_path / "copy.img"
    with remote(kind, holed) as uri:
        served = serve(uri, "--unix", tmp_path / "s", "--connections", "2")
        assert served.hear().startswith(f"serving {uri}, 8 MiB, at ")
        there, here = told(uri), told(served.uri)
        assert [here[name] for name in FLAGS] == [there[name] for name in FLAGS]
        assert here["contexts"] == ["base:allocation"]
        assert here["can_multi_conn"] is True
        maps = [run("nbdinfo", "--map", "--totals", each) for each in (uri, served.uri)]
        assert maps[0] == maps[1]
        run("nbdcopy", served.uri, copy)
        assert copy.read_bytes() == holed.read_bytes()
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", served.uri, holed)
        commands = (
            "write -P 7 1M 1M",
            "write -f -P 8 5000 100",
            "write -z 2M 64k",
            "discard 6M 1M",
        )
        run(
            "qemu-io",
            "-f",
            "raw",
            *(part for each in commands for part in ("-c", each)),
            served.uri,
        )
        assert served.stop()[0] == 0  # with a flush
        data = holed.read_bytes()
    assert data[MIB : 2 * MIB] == b"\7" * MIB
    assert data[5000:5101] == b"\10" * 100 + b"\0"
    assert data[2 * MIB : 2 * MIB + 65536] == bytes(65536)


def test_block_sizes_are_those_of_the_other_server(serve: Serve, holed: Path, tmp_path: Path):
    limits = [f"blocksize-{name}" for name in ("minimum=4096", "preferred=64K", "maximum=1M")]
    filters = ("--filter=blocksize-policy", "blocksize-error-policy=error", *limits)
    # nbdkit takes parameters behind the plugin's name only.
    place = tmp_path / "k"
    need("nbdkit")
    with running(
        place, "nbdkit", "-f", "-U", place, filters[0], "file", holed, *filters[1:]
    ) as uri:
        served = serve(uri, "--unix", tmp_path / "a")
        here = told(served.uri)
        sizes = [here[f"block_size_{name}"] for name in ("minimum", "preferred", "maximum")]
        assert sizes == [4096, 65536, MIB]
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", served.uri, holed)
        served.stop()
        # An overlay takes any requests, and cuts what it reads.
        over = serve(uri, "--unix", tmp_path / "b", "--overlay", tmp_path / "changes")
        assert told(over.uri)["block_size_minimum"] == 1
        run("nbdcopy", "--request-size=4194304", over.uri, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == holed.read_bytes()
        commands = ("-c", "write -P 9 1048577 3", "-c", "read -P 9 1048577 3")
        run("qemu-io", "-f", "raw", *commands, over.uri)
        assert over.stop()[0] == 0


@pytest.mark.parametrize("way", ["remote", "option"])
def test_it_is_read_only_if_one_of_the_two_says_so(
    serve: Serve, holed: Path, tmp_path: Path, way: str
):
    with remote("ours", holed, *(["--read-only"] if way == "remote" else [])) as uri:
        options = ["--read-only"] if way == "option" else []
        served = serve(uri, "--unix", tmp_path / "s", *options)
        assert "8 MiB, read-only, at" in served.hear()
        here = told(served.uri)
        assert (here["read_only"], here["can_trim"], here["can_zero"]) == (True, False, False)


def test_beside_others_and_for_a_command(serve: Serve, holed: Path, tmp_path: Path):
    found = tmp_path / "found.json"
    with remote("ours", holed) as uri:
        options = ("--export", f"a.py={uri}", "--export", "m=memory:1M")
        command = f'echo "$size"; nbdinfo --list --json "$uri" > {shlex.quote(str(found))}'
        served = serve(*options, "--run", command)
        code, _, err = served.finish()
    listed = json.loads(found.read_text())["exports"]
    assert (code, served.uri) == (0, str(SIZE)), err
    assert [each["export-name"] for each in listed] == ["a.py", "m"]


@pytest.mark.parametrize("threads", ["0", "2"])
def test_below_an_overlay_for_each_client(serve: Serve, holed: Path, tmp_path: Path, threads: str):
    before = holed.read_bytes()
    with remote("ours", holed, "--read-only") as uri:
        served = serve(
            uri, "--overlay-per-client", "--unix", tmp_path / "s", "--iothreads", threads
        )
        write = ("-c", "write -P 9 1048577 3", "-c", "read -P 9 1048577 3")
        run("qemu-io", "-f", "raw", *write, served.uri)
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", served.uri, holed)
        assert served.stop()[0] == 0
    assert holed.read_bytes() == before


def test_an_odd_size(serve: Serve, tmp_path: Path):
    odd = tmp_path / "odd.img"
    odd.write_bytes(b"x" * 4097)
    with remote("ours", odd) as uri:
        served = serve(uri, "--unix", tmp_path / "a")
        run("nbdcopy", served.uri, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == odd.read_bytes()
        rounded = serve(uri, "--unix", tmp_path / "b", "--round-size", "512")
        assert told(rounded.uri)["export-size"] == 4608


def test_encrypted(serve: Serve, holed: Path, tmp_path: Path, certificates: Path):
    tls = ("--tls-certificates", certificates, "--tls-required")
    with remote("ours", holed, *tls) as plain:
        query = f"&tls-certificates={certificates}&tls-hostname=localhost"
        served = serve(plain.replace("nbd", "nbds", 1) + query, "--unix", tmp_path / "s")
        run("nbdcopy", served.uri, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == holed.read_bytes()
        assert served.stop()[0] == 0
        refused = serve(plain, "--unix", tmp_path / "s")
        assert "the server demands TLS" in refused.finish()[2]


class TestRefused:
    def test_a_server_that_is_not_there(self, refused: Refused, tmp_path: Path):
        uri = f"nbd+unix:///?socket={tmp_path}/none"
        assert "cannot connect to nbd+unix" in refused(uri)
        assert "cannot connect to nbd+unix" in refused("--export", f"a={uri}")

    def test_an_export_that_is_not_there(self, refused: Refused, holed: Path):
        with remote("ours", holed, "--name", "x") as uri:
            assert "no export is named 'y'" in refused(uri.replace("///", "///y"))

    def test_its_own_listening_socket(self, refused: Refused, tmp_path: Path):
        place = tmp_path / "s"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(place))
            listener.listen()
            number = listener.fileno()
            uri = f"nbd+unix:///?socket={place}"
            line = refused(uri, "--socket-fd", number, pass_fds=[number])
        assert "so it would serve itself" in line

    def test_wrong_use(self, refused: Refused):
        assert "names no socket" in refused("nbd+unix:///x", code=2)
        assert "write nbd+unix:///?socket=s" in refused("nbd:unix:s", code=2)
        assert "is not a time" in refused("a.img", "--reconnect-delay", "nan", code=2)
        assert "--size is for a disk in memory" in refused("nbd://h/", "--size", "1G", code=2)

    def test_a_format(self, refused: Refused):
        assert "--format qcow2 is for images" in refused("nbd://h/", "--format", "qcow2", code=2)


class TestTheOtherServerDies:
    def test_requests_wait_for_it(self, serve: Serve, holed: Path, tmp_path: Path):
        before = holed.read_bytes()
        with remote("ours", holed) as uri:
            served = serve(uri, "--unix", tmp_path / "s", "--reconnect-delay", "300")
        command = ["nbdcopy", served.uri, str(tmp_path / "copy")]
        need("nbdcopy")
        with subprocess.Popen(command) as copying:
            with pytest.raises(subprocess.TimeoutExpired):
                copying.wait(0.5)
            with remote("ours", holed):
                assert copying.wait(TIMEOUT) == 0
        assert (tmp_path / "copy").read_bytes() == before

    def test_requests_fail_after_the_delay(self, serve: Serve, holed: Path, tmp_path: Path):
        with remote("ours", holed) as uri:
            served = serve(uri, "--unix", tmp_path / "s", "--reconnect-delay", "0.2")
        read = f"qemu-io -r -f raw -c 'read 0 512' {shlex.quote(served.uri)}"
        need("qemu-io")
        done = subprocess.run(read, shell=True, check=False, capture_output=True, text=True)
        assert "read failed: Input/output error" in done.stdout + done.stderr
        with remote("ours", holed):
            run(*shlex.split(f"timeout {TIMEOUT} sh -c"), f"until {read}; do sleep 0.1; done")

    def test_the_end_says_that_it_could_not_flush(self, serve: Serve, holed: Path, tmp_path: Path):
        with remote("ours", holed) as uri:
            served = serve(uri, "--unix", tmp_path / "s", "--reconnect-delay", "0")
            run("qemu-io", "-f", "raw", "-c", "write 0 512", served.uri)
        code, _, err = served.stop()
        assert (code, err.count("\n")) == (1, 2)
        assert f"cannot flush {uri}: no connection to" in err.splitlines()[1]
