"""The NBD protocol without I/O: bytes in, events and bytes out.

`_server` imports from here; nothing here touches a socket, a thread or a loop.
It runs in the caller's thread.
"""
