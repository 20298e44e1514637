"""The NBD server: sockets, connections, and the requests that they make of disks.

`homebound.nbd` exports it.
A connection lives on the home thread of its I/O thread's context.
"""
