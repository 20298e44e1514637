"""The NBD protocol without I/O: bytes in, events and bytes out.

`_server` imports from here; nothing here touches a socket, a thread or a loop.
It runs on the thread of the caller.
"""
