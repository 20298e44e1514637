"""Images in QEMU's qcow2 format, read only: header, tables, compressed clusters, backing files.

For `homebound.block`, which exports `disk.Qcow2Disk`. Everything here may block and runs in
workers, except attempts (`try_...`), which use only what is in memory and run in any thread.
"""
