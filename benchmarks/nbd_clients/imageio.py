"""Sequential reads with oVirt's client, one in flight: `imageio.py SOCKET BYTES 1 REQUESTS`."""

from __future__ import annotations

import sys
from time import perf_counter, process_time

from ovirt_imageio._internal import nbd

path, *numbers = sys.argv[1:]
size, depth, requests = map(int, numbers)
assert depth == 1
client = nbd.Client(nbd.UnixAddress(path))
blocks = client.export_size // size
buffer = bytearray(size)
wall, cpu = perf_counter(), process_time()
for number in range(requests):
    client.readinto(number % blocks * size, buffer)
took = perf_counter() - wall, process_time() - cpu
client.close()
sys.stdout.write(f"{took[0] / requests} {took[1] / requests}\n")
