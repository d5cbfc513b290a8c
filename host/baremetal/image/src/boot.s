# From the boot loader to Rust: 32-bit protected mode without paging, to 64-bit mode at the
# image's own addresses.
#
# In: EBX is the physical address of what the loader says; EAX is multiboot2's magic number if it
# was that. Out: rust_start(kind, address) on the boot CPU's stack. Everything here runs at
# physical addresses; the tables map the first 4 GiB there, and at the physical window, and their
# first GiB at the top.

.set MULTIBOOT_LENGTH, multiboot_end - multiboot_header

.section .boot.header, "a"
.balign 8
multiboot_header:
    .long 0xe85250d6            # multiboot2
    .long 0                     # 32-bit protected mode
    .long MULTIBOOT_LENGTH
    .long -(0xe85250d6 + MULTIBOOT_LENGTH)
    .word 3, 0                  # where to start
    .long 12
    .long multiboot_start
    .long 0
    .word 6, 0                  # modules begin at pages
    .long 8
    .word 0, 0
    .long 8
multiboot_end:

.section .boot, "awx"
.code32
.global pvh_start
pvh_start:
    xor %eax, %eax
.global multiboot_start
multiboot_start:
    nopl 0x524b(%eax)           # where a count of instructions begins (docs/benchmarks.md)
    cli
    cld
    mov %eax, %edi
    mov %ebx, %esi
    mov $boot_stack_low, %esp

    # A CPU without 64-bit mode, or without no-execute, gets a message.
    mov $0x80000000, %eax
    cpuid
    cmp $0x80000001, %eax
    jb 8f
    mov $0x80000001, %eax
    cpuid
    mov %edx, %eax
    and $0x20100000, %eax
    cmp $0x20100000, %eax
    jne 8f

    # Present, writable; the loader has cleared the rest.
    movl $boot_pdpt + 3, boot_pml4
    movl $boot_pdpt + 3, boot_pml4 + 256 * 8
    movl $boot_pdpt_high + 3, boot_pml4 + 511 * 8
    movl $boot_pd + 0x0003, boot_pdpt
    movl $boot_pd + 0x1003, boot_pdpt + 8
    movl $boot_pd + 0x2003, boot_pdpt + 16
    movl $boot_pd + 0x3003, boot_pdpt + 24
    movl $boot_pd + 3, boot_pdpt_high + 510 * 8
    mov $boot_pd, %ebx
    mov $0x83, %eax             # and of 2 MiB
    mov $2048 / 8, %ecx
1:  .set entry, 0
    .rept 8
    mov %eax, 8 * entry(%ebx)
    add $0x200000, %eax
    .set entry, entry + 1
    .endr
    add $64, %ebx
    dec %ecx
    jnz 1b

    mov $0x20, %eax             # CR4.PAE
    mov %eax, %cr4
    mov $boot_pml4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx       # EFER: LME, NXE
    rdmsr
    or $0x900, %eax
    wrmsr
    mov $0x80010033, %eax       # CR0: PG, WP, NE, ET, MP, PE
    mov %eax, %cr0
    lgdt boot_gdt_pointer
    ljmp $8, $2f

8:  mov $boot_message, %esi
    mov $0x3f8, %dx
9:  lodsb
    outb %al, %dx
    test %al, %al
    jnz 9b
7:  hlt
    jmp 7b

.code64
2:  xor %eax, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov %eax, %fs
    mov %eax, %gs
    mov %edi, %edi
    mov %esi, %esi
    movabs $boot_stack_top, %rsp
    xor %ebp, %ebp
    push %rbp
    movabs $rust_start, %rax
    jmp *%rax

boot_message:
    .asciz "redox-hypervisor: this processor has no 64-bit mode with no-execute pages\r\n"

.balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff
boot_gdt_pointer:
    .word 15
    .long boot_gdt

# The first tables. They are not in the file: the steps above fill them.
.section .boot.tables, "aw", @nobits
.balign 4096
boot_pml4:      .skip 4096
boot_pdpt:      .skip 4096
boot_pdpt_high: .skip 4096
boot_pd:        .skip 4 * 4096

.section .note.Xen, "a", @note
.balign 4
    .long 4
    .long 8
    .long 18                    # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_start

# Its length, and a table of names: made by `cargo xtask image` after linking; none yet.
.section .symbols, "a"
.balign 16
    .long 4

.section .bss.stack, "aw", @nobits
    .skip 65536
.global boot_stack_top
boot_stack_top:
.set boot_stack_low, boot_stack_top - 0xffffffff80000000
.text
