"""The NBD protocol without I/O: bytes in, events and bytes out.

`_server`, `_client` and `_libnbd` import from here; nothing here touches a socket, a thread or a
loop. It runs in the caller's thread.
"""
