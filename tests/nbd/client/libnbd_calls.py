"""A program that uses libnbd's Python interface, and prints as JSON what each call gave.

Run with libnbd's own module, or, if the first argument is "ours", with ours in its place.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from typing import Any

if sys.argv[1] == "ours":
    from homebound.nbd import libnbd

    sys.modules["nbd"] = libnbd

import nbd  # type: ignore[import-not-found,unused-ignore]

results: list[Any] = []


def shown(value: Any) -> Any:
    return value.decode("latin-1") if isinstance(value, (bytes, bytearray)) else value


def call(what: str, fn: Any, *args: Any) -> None:
    """Make a call; note what it gave, or the errno of its failure."""
    try:
        outcome = ["returns", shown(fn(*args))]
    except nbd.Error as error:
        outcome = ["fails", error.errno, error.errnum]
    except TypeError:
        outcome = ["TypeError"]
    results.append([what, outcome])


def all_of(h: Any, what: str) -> None:
    """Note all that a handle tells."""
    for name in (
        *("get_size", "is_read_only", "is_rotational", "can_flush", "can_fua", "can_trim"),
        *("can_zero", "can_fast_zero", "can_df", "can_multi_conn", "can_cache"),
        *("get_structured_replies_negotiated", "get_tls_negotiated", "get_protocol"),
        *("get_export_name", "get_tls", "get_opt_mode", "get_full_info", "get_strict_mode"),
        *("get_request_structured_replies", "get_handshake_flags", "aio_in_flight"),
        *("aio_is_created", "aio_is_ready", "aio_is_closed", "aio_is_dead", "aio_is_negotiating"),
    ):
        call(f"{what}: {name}", getattr(h, name))
    for size in (nbd.SIZE_MINIMUM, nbd.SIZE_PREFERRED, nbd.SIZE_MAXIMUM):
        call(f"{what}: get_block_size {size}", h.get_block_size, size)
    call(f"{what}: can_meta_context", h.can_meta_context, nbd.CONTEXT_BASE_ALLOCATION)


def extents(h: Any, count: int, offset: int, flags: int = 0) -> list[Any]:
    found: list[Any] = []
    h.block_status(count, offset, lambda *args: found.append(args[:3]), flags)
    return found


def settings():
    h = nbd.NBD()
    all_of(h, "created")
    call("set_export_name", h.set_export_name, "x")
    call("too long", h.set_export_name, "x" * 5000)
    call("set_tls 7", h.set_tls, 7)
    call("handshake flags", h.set_handshake_flags, 4)
    call("get_meta_context", h.get_meta_context, 0)
    h.add_meta_context("a")
    h.add_meta_context("b")
    call("contexts", h.get_nr_meta_contexts)
    call("context 1", h.get_meta_context, 1)
    h.clear_meta_contexts()
    call("no contexts", h.get_nr_meta_contexts)
    call("private data", h.set_private_data, 7)
    call("private data again", h.set_private_data, 8)
    for name in ("pread", "pwrite", "flush", "shutdown", "opt_go", "opt_info", "opt_abort"):
        args = {"pread": (1, 0), "pwrite": (b"x", 0)}.get(name, ())
        call(f"created: {name}", getattr(h, name), *args)
    call("connect_uri", h.connect_uri, "raw.img")
    h = nbd.NBD()
    call("connect_unix", h.connect_unix, "/nonexistent/socket")
    all_of(h, "dead")
    h = nbd.NBD()
    call("connect_tcp", h.connect_tcp, "127.0.0.1", "1")


def requests(uri: str) -> None:
    h = nbd.NBD()
    h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    h.connect_uri(uri)
    size = h.get_size()
    all_of(h, "ready")
    call("too late", h.set_export_name, "y")
    call("pwrite", h.pwrite, b"hello" * 100, 1000)
    call("pread", h.pread, 700, 900)
    call("pwrite FUA", h.pwrite, bytearray(b"fua"), 5000, nbd.CMD_FLAG_FUA)
    call("pread there", h.pread, 5, 4999)
    call("zero", h.zero, 100, 1000)
    call("zero NO_HOLE", h.zero, 4096, 8192, nbd.CMD_FLAG_NO_HOLE)
    call("zeroed", h.pread, 200, 1000)
    call("trim", h.trim, 4096, 4096)
    call("flush", h.flush)
    call("extents", extents, h, size, 0)
    call("one extent", extents, h, size, 0, nbd.CMD_FLAG_REQ_ONE)
    call("beyond", h.pread, 2, size - 1)
    call("write beyond", h.pwrite, b"xx", size - 1)
    call("zero beyond", h.zero, 2, size - 1)
    call("trim beyond", h.trim, 2, size - 1)
    call("status beyond", extents, h, 2, size - 1)
    call("nothing", h.pread, 0, 0)
    call("write nothing", h.pwrite, b"", 0)
    call("zero nothing", h.zero, 0, 0)
    call("a wrong flag", h.pread, 1, 0, nbd.CMD_FLAG_FUA)
    call("a wrong flag of flush", h.flush, nbd.CMD_FLAG_FUA)
    call("cache", h.cache, 4096, 0)
    call("too much", h.pread, 100 << 20, 0)
    call("pread_structured", h.pread_structured, 10, 0, lambda *_: 0)
    structured = []
    h.pread_structured(10, 1000, lambda b, o, s, e: structured.append([len(b), o, s, e.value]))
    results.append(["chunks", structured])
    aio(h)
    call("shutdown", h.shutdown)
    all_of(h, "closed")
    call("shutdown again", h.shutdown)
    call("closed: pread", h.pread, 1, 0)


def retire(ended: list[Any], n: int, error: Any) -> int:
    """Note the end of a request; 1 says that it will not be asked about."""
    ended.append((n, error.value))
    return 1


def aio(h: Any) -> None:
    ended: list[Any] = []
    buffers = [nbd.Buffer.from_bytearray(bytes([n + 1]) * 512) for n in range(8)]
    for n, buffer in enumerate(buffers):
        h.aio_pwrite(buffer, n * 512, partial(retire, ended, n))
    while h.aio_in_flight():
        h.poll(-1)
    results.append(["aio_pwrite", sorted(ended)])
    call("peek", h.aio_peek_command_completed)
    target = nbd.Buffer(4096)
    cookie = h.aio_pread(target, 0)
    while not h.aio_command_completed(cookie):
        h.poll(-1)
    data = target.to_bytearray()
    results.append(["aio_pread", shown(data), target.size(), target.is_zero(), len(target)])
    call("completed again", h.aio_command_completed, cookie)
    call("poll", h.poll, 0)
    results.append(["fd", h.aio_get_fd() > 0, h.aio_get_direction()])
    shared = bytearray(512)
    cookie = h.aio_pread(nbd.Buffer.from_buffer(shared), 0)
    while not h.aio_command_completed(cookie):
        h.poll(-1)
    results.append(["shared", shown(shared)])


def options(uri: str) -> None:
    h = nbd.NBD()
    h.set_opt_mode(True)
    h.set_full_info(True)
    h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    h.connect_uri(uri)
    all_of(h, "negotiating")
    found: list[Any] = []
    call("opt_list", h.opt_list, lambda *args: found.append(args))
    call("contexts", h.opt_list_meta_context, found.append)
    results.append(["found", found])
    call("negotiating: pread", h.pread, 1, 0)
    call("opt_info", h.opt_info)
    all_of(h, "info")
    call("description", h.get_export_description)
    call("name none", h.set_export_name, "none")
    call("opt_info none", h.opt_info)
    all_of(h, "info none")
    call("opt_go none", h.opt_go)
    call("name empty", h.set_export_name, "")
    call("opt_go", h.opt_go)
    all_of(h, "gone")
    call("opt_info late", h.opt_info)
    call("pread", h.pread, 5, 4999)
    call("shutdown", h.shutdown)
    h = nbd.NBD()
    h.set_opt_mode(True)
    h.connect_uri(uri)
    call("opt_abort", h.opt_abort)
    all_of(h, "aborted")


def commands():
    h = nbd.NBD()
    h.connect_command(["nbdkit", "-s", "--exit-with-parent", "pattern", "size=1M"])
    call("pattern", h.pread, 32, 256)
    call("read-only", h.pwrite, b"x", 0)
    h.shutdown()
    h = nbd.NBD()
    image = sys.argv[3]
    h.connect_systemd_socket_activation(
        ["qemu-nbd", "--read-only", "--persistent", "-f", "raw", image]
    )
    call("activated", h.pread, 8, 0)
    h.shutdown()
    h = None


os.environ.pop("LIBNBD_DEBUG", None)
settings()
requests(sys.argv[2])
options(sys.argv[2])
commands()
json.dump(results, sys.stdout)
