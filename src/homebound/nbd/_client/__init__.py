"""The client of NBD servers: URIs, connecting, replacing connections, and the disk on them.

`homebound.nbd` exports what is public. A disk's sockets are served in its home thread; connecting
runs in workers.
"""
