# Where another CPU starts: real mode, at the page that START names, to 64-bit mode and Rust.
# Copied there; `trampoline_root` is filled in. The page can be read and executed, not written.

.set START, 0x8000

.section .rodata.trampoline, "a"
.balign 16
.global trampoline
trampoline:
.code16
    cli
    cld
    xor %ax, %ax
    mov %ax, %ds
    lgdtl trampoline_gdt_pointer - trampoline + START
    mov %cr0, %eax
    or $1, %eax
    mov %eax, %cr0
    ljmpl $8, $(2f - trampoline + START)
.code32
2:  mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $0x20, %eax             # CR4.PAE
    mov %eax, %cr4
    mov trampoline_root - trampoline + START, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx       # EFER: LME, NXE
    rdmsr
    or $0x900, %eax
    wrmsr
    mov $0x80010033, %eax       # CR0: PG, WP, NE, ET, MP, PE
    mov %eax, %cr0
    ljmpl $24, $(3f - trampoline + START)
.code64
3:  xor %eax, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov %eax, %fs
    mov %eax, %gs
    # Each takes the next of the places that were prepared.
    inc %eax
    movabs $smp_arrived, %rcx
    lock xadd %eax, (%rcx)
    movabs $smp_places, %rcx
    mov (%rcx), %rcx
    mov (%rcx, %rax, 8), %rsp
    mov %eax, %edi
    xor %ebp, %ebp
    push %rbp
    movabs $smp_start, %rax
    jmp *%rax

.balign 8
trampoline_gdt:
    .quad 0
    .quad 0x00cf9b000000ffff
    .quad 0x00cf93000000ffff
    .quad 0x00af9b000000ffff
trampoline_gdt_pointer:
    .word 31
    .long trampoline_gdt - trampoline + START
.balign 4
.global trampoline_root
trampoline_root:
    .long 0
.global trampoline_end
trampoline_end:
.text
