"""A tiny PC: two vCPU threads run x86 guest code, with devices under the big lock.

The boot sector (boot.s) has each vCPU read two sectors through a port, show them on the console,
and wait for the timer. The disk is asynchronous; a vCPU waits for it with `block_on`, standing in
for the main loop, in which the timer ticks and the other vCPU's requests go on. Needs `unicorn`.
"""

from __future__ import annotations

import asyncio
import ctypes
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import unicorn
from unicorn import x86_const as x86

import homebound
from homebound.block import MemoryDisk

if TYPE_CHECKING:
    from homebound.block import Disk

# boot.s, assembled; the rest of the sector is zeroes up to its mark.
BOOT_CODE = bytes.fromhex(
    "31c08ed88ed0c7068000467ca38200e41084c0bc0070be0080b3017408bc0060"
    "be0084b303fbb7025688d8e620ac84c07404e6e9ebf75efec3fecf75ebf4b02e"
    "e6e9e630ebfecf"
)
BOOT_SECTOR = BOOT_CODE.ljust(510, b"\0") + b"\x55\xaa"
BOOT_ADDRESS = 0x7C00
RAM_SIZE = 1 << 16
SECTOR = 512
PORT_INDEX, PORT_DISK, PORT_POWER, PORT_CONSOLE = 0x10, 0x20, 0x30, 0xE9
TIMER_VECTOR = 0x20
SLICE = 2000  # instructions between two looks at interrupt_requested
INTERRUPTS_ON = 1 << 9  # in the flags
TICK = 0.005  # seconds


class Processor:
    """One vCPU: an engine, made and used by its thread alone, on memory that all share."""

    def __init__(self, machine: Machine, index: int) -> None:
        """Leave the vCPU off; its thread powers it on in the first round."""
        self.machine = machine
        self.index = index
        self.line = False  # the timer's interrupt; under the big lock
        self.engine: Any = None
        self.vcpu = homebound.VCPU(
            index, self.execute, has_work=lambda _: self.line or self.engine is None
        )

    def execute(self, vcpu: homebound.VCPU) -> None:
        """Run guest code for a while, without the big lock."""
        engine = self.engine
        if engine is None:
            engine = self.engine = self.power_on()
        while not vcpu.interrupt_requested and not vcpu.halted:
            self.take_interrupt(engine)
            start = engine.reg_read(x86.UC_X86_REG_CS) * 16 + engine.reg_read(x86.UC_X86_REG_IP)
            engine.emu_start(start, RAM_SIZE, count=SLICE)
            if engine.mem_read(self.address(engine) - 1, 1) == b"\xf4":  # it stands after a HLT
                vcpu.halt()

    def power_on(self) -> Any:
        """Make the engine, in the thread that is to use it."""
        engine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_16)
        ram = ctypes.addressof(self.machine.ram)
        engine.mem_map_ptr(0, RAM_SIZE, unicorn.UC_PROT_ALL, ram)
        engine.hook_add(unicorn.UC_HOOK_INSN, self.port_in, None, 1, 0, x86.UC_X86_INS_IN)
        engine.hook_add(unicorn.UC_HOOK_INSN, self.port_out, None, 1, 0, x86.UC_X86_INS_OUT)
        engine.reg_write(x86.UC_X86_REG_IP, BOOT_ADDRESS)
        return engine

    def address(self, engine: Any) -> int:
        """Return the linear address at which it executes."""
        code: int = engine.reg_read(x86.UC_X86_REG_CS) * 16
        return code + int(engine.reg_read(x86.UC_X86_REG_IP))

    def take_interrupt(self, engine: Any) -> None:
        """Do as the hardware does: push flags, CS and IP, and jump to the vector's address."""
        flags = engine.reg_read(x86.UC_X86_REG_EFLAGS)
        if not flags & INTERRUPTS_ON:
            return
        with homebound.big_lock:
            if not self.line:
                return
            self.line = False
        registers = (x86.UC_X86_REG_CS, x86.UC_X86_REG_IP)
        stack = engine.reg_read(x86.UC_X86_REG_SP)
        frame = (engine.reg_read(x86.UC_X86_REG_IP), engine.reg_read(x86.UC_X86_REG_CS), flags)
        stack -= 6
        base = engine.reg_read(x86.UC_X86_REG_SS) * 16
        pushed = b"".join((word & 0xFFFF).to_bytes(2, "little") for word in frame)
        engine.mem_write(base + stack, pushed)
        engine.reg_write(x86.UC_X86_REG_SP, stack)
        engine.reg_write(x86.UC_X86_REG_EFLAGS, flags & ~INTERRUPTS_ON)
        vector = bytes(engine.mem_read(TIMER_VECTOR * 4, 4))
        engine.reg_write(registers[0], int.from_bytes(vector[2:], "little"))
        engine.reg_write(registers[1], int.from_bytes(vector[:2], "little"))

    # Called by the engine, in the vCPU's thread.

    def port_in(self, _engine: Any, port: int, _size: int, _data: Any) -> int:
        """Handle the guest's IN."""
        return self.index if port == PORT_INDEX else 0xFF

    def port_out(self, engine: Any, port: int, _size: int, value: int, _data: Any) -> None:
        """Handle the guest's OUT: a device access, under the big lock."""
        with homebound.big_lock:
            if port == PORT_CONSOLE:
                self.machine.console[self.index].append(value)
            elif port == PORT_DISK:
                data = homebound.block_on(self.machine.read_sector(value))
                engine.mem_write(int(engine.reg_read(x86.UC_X86_REG_SI)), data)
            elif port == PORT_POWER:
                self.vcpu.stop()
                engine.emu_stop()


class Machine:
    """Memory, a disk, a console for each vCPU, a timer."""

    def __init__(self, disk: Disk, processors: int = 2) -> None:
        """Put the boot sector into memory; everything else is off."""
        self.disk = disk
        self.ram = (ctypes.c_char * RAM_SIZE)()
        ctypes.memmove(ctypes.addressof(self.ram) + BOOT_ADDRESS, BOOT_SECTOR, SECTOR)
        self.console = [bytearray() for _ in range(processors)]
        self.readers: set[str] = set()  # the threads in which the disk's coroutine began
        self.processors = [Processor(self, index) for index in range(processors)]

    async def read_sector(self, number: int) -> bytes:
        """Read a sector: the disk controller, asynchronous like the storage behind it."""
        self.readers.add(threading.current_thread().name)
        await asyncio.sleep(0.002)  # a slow disk: the other vCPU goes on meanwhile
        return bytes(await self.disk.read(number * SECTOR, SECTOR))

    def tick(self) -> None:
        """Tick: the timer, in the main loop (or in a vCPU's thread that stands in for it)."""
        for processor in self.processors:
            processor.line = True
            processor.vcpu.kick()
        asyncio.get_running_loop().call_later(TICK, self.tick)

    async def run(self) -> None:
        """Run until all vCPUs have powered off. The main loop keeps running meanwhile."""
        self.tick()
        with ExitStack() as stack:
            for processor in self.processors:
                stack.enter_context(processor.vcpu)
            for processor in self.processors:
                processor.vcpu.join()


def make_disk() -> MemoryDisk:
    disk = MemoryDisk(8 * SECTOR)
    for number, text in enumerate([b"Hello ", b"from vCPU 0", b"Good day ", b"from vCPU 1"], 1):
        disk.try_write(number * SECTOR, text)
    return disk


def main() -> None:
    with make_disk() as disk:
        machine = Machine(disk)
        homebound.run(machine.run())
    for text in machine.console:
        print(text.decode())
    print("the disk was read in", ", ".join(sorted(machine.readers)))


if __name__ == "__main__":
    main()
