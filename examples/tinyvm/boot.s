# The boot sector of the tiny machine. 16-bit code at 0000:7C00, run by two vCPUs.
#
#   as --32 boot.s -o boot.o && ld -m elf_i386 -Ttext=0x7c00 --oformat binary boot.o -o boot.bin
#
# Ports:  10h read: which vCPU this is     20h write: the sector to read, into memory at 8000h,
#         E9h write: a character           or at 8400h by vCPU 1; 30h write: power off this vCPU
# The timer's interrupt is vector 20h.

        .intel_syntax noprefix
        .code16
        .globl _start
_start:
        xor     ax, ax
        mov     ds, ax
        mov     ss, ax
        mov     word ptr [0x80], offset timer   # vector 20h
        mov     word ptr [0x82], ax
        in      al, 0x10
        test    al, al
        mov     sp, 0x7000
        mov     si, 0x8000
        mov     bl, 1                           # vCPU 0 shows sectors 1 and 2
        jz      ready
        mov     sp, 0x6000
        mov     si, 0x8400
        mov     bl, 3                           # vCPU 1 shows sectors 3 and 4
ready:
        sti
        mov     bh, 2
next:
        push    si
        mov     al, bl
        out     0x20, al                        # returns when the sector is in memory
show:
        lodsb
        test    al, al
        jz      shown
        out     0xe9, al
        jmp     show
shown:
        pop     si
        inc     bl
        dec     bh
        jnz     next
        hlt                                     # until the timer has ticked
        mov     al, 0x2e                        # a dot for it
        out     0xe9, al
        out     0x30, al
stay:   jmp     stay
timer:
        iret

        .org    510
        .word   0xaa55
