"""Reads with libnbd's own Python module: `libnbd.py SOCKET BYTES DEPTH REQUESTS`."""

from __future__ import annotations

import sys
from functools import partial
from time import perf_counter, process_time
from typing import Any

import nbd

path, *numbers = sys.argv[1:]
size, depth, requests = map(int, numbers)
STRIDE = 7919 if depth > 1 else 1
handle = nbd.NBD()
handle.connect_unix(path)
blocks = handle.get_size() // size
free = [nbd.Buffer(size) for _ in range(depth)]


def done(buffer: Any, error: Any) -> int:
    """Take the end of a read; 1 retires it."""
    assert not error.value
    free.append(buffer)
    return 1


begun = 0
wall, cpu = perf_counter(), process_time()
while begun < requests or len(free) < depth:
    while free and begun < requests:
        buffer = free.pop()
        offset = begun * STRIDE % blocks * size
        handle.aio_pread(buffer, offset, completion=partial(done, buffer))
        begun += 1
    handle.poll(-1)
took = perf_counter() - wall, process_time() - cpu
handle.shutdown()
sys.stdout.write(f"{took[0] / requests} {took[1] / requests}\n")
