"""Files that fsspec can reach, as disks that can be read: the remote file, a cache of blocks.

For `homebound.block`, which exports `disk.FsspecDisk`. `remote` blocks and runs in workers only;
the rest runs in tasks, attempts in any thread. fsspec is imported when the first disk is made.
"""
