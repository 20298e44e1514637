"""Has the kernel refuse fallocate(2) to this process, as a file system without holes does.

Run as `python refuse_fallocate.py PROGRAM [ARGUMENT]...`: a seccomp filter makes each call of
fallocate fail with EOPNOTSUPP, in this thread and those that it starts; then PROGRAM, which is
Python's text, is run. Exits with 77 where the kernel or the machine has no such filter.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import sys

NO_FILTER = 77
FALLOCATE = {"x86_64": 285, "aarch64": 47, "riscv64": 47}  # its number in the kernel's table

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # BPF: what the three instructions are
RETURN_ERRNO, ALLOW = 0x0005_0000, 0x7FFF_0000


class Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("operand", ctypes.c_uint32),
    )


class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(Instruction)))


def refuse(number: int) -> bool:
    """Have the system call with this number fail with EOPNOTSUPP from now on."""
    instructions = (Instruction * 4)(
        Instruction(LOAD_WORD, 0, 0, 0),  # the number of the call
        Instruction(JUMP_IF_EQUAL, 0, 1, number),
        Instruction(RETURN, 0, 0, RETURN_ERRNO | errno.EOPNOTSUPP),
        Instruction(RETURN, 0, 0, ALLOW),
    )
    program = Program(len(instructions), instructions)
    prctl = ctypes.CDLL(None).prctl
    if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return False
    return not prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)


if __name__ == "__main__":
    here = FALLOCATE.get(platform.machine())
    if sys.platform != "linux" or here is None or not refuse(here):
        sys.exit(NO_FILTER)
    text = sys.argv[1]
    sys.argv[:2] = ["<program>"]
    exec(compile(text, "<program>", "exec"), {"__name__": "__main__"})
