/* From PVH's 32-bit entry to Rust in 64-bit mode, and the way of the other processors there.
 * PVH: xen/include/public/arch-x86/hvm/start_info.h: EBX has the start information, paging is
 * off, segments are flat. */

    .section .note.pvh, "a"
    .align 4
    .long 4, 4, 18              /* name, descriptor, XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .long pvh_start

    .section .text.boot, "ax"
    .code32
    .global pvh_start
pvh_start:
    nopl 0x524b(%eax)           /* a marker for who counts instructions (docs/testing.md) */
    cld
    movl $boot_stack_end, %esp
    movl %ebx, start_info
    /* PML4[0] -> PDPT; PDPT[0..4] -> four page directories of 2 MiB pages; the rest 1 GiB pages. */
    movl $pdpt + 3, pml4
    movl $pds + 3, %eax
    movl $pdpt, %edi
    movl $4, %ecx
1:  movl %eax, (%edi)
    addl $0x1000, %eax
    addl $8, %edi
    loop 1b
    xorl %edx, %edx             /* high half of the address of a 1 GiB page */
    movl $0x83, %eax
    incl %edx
    movl $508, %ecx
2:  movl %eax, (%edi)
    movl %edx, 4(%edi)
    addl $0x40000000, %eax
    adcl $0, %edx
    addl $8, %edi
    loop 2b
    movl $pds, %edi
    movl $0x83, %eax
    movl $2048, %ecx
3:  movl %eax, (%edi)
    addl $0x200000, %eax
    addl $8, %edi
    loop 3b
    call enter_long
    ljmp $8, $long_start

/* Turns 64-bit mode on; the caller then loads CS. */
enter_long:
    movl %cr4, %eax
    orl $0x620, %eax            /* PAE, OSFXSR, OSXMMEXCPT */
    movl %eax, %cr4
    movl $pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x100, %eax            /* LME */
    wrmsr
    movl %cr0, %eax
    andl $~0x60000004, %eax     /* CD, NW, EM */
    orl $0x80010023, %eax       /* PG, WP, NE, MP, PE */
    movl %eax, %cr0
    lgdt gdt_pointer
    ret

    .code64
long_start:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    movl $boot_stack_end, %esp
    movl start_info, %edi
    xorl %ebp, %ebp
    call kernel_main
4:  hlt
    jmp 4b

/* What another processor starts with: copied to 0x8000, entered in real mode by a start-up IPI. */
    .code16
    .global ap_start, ap_end
ap_start:
    cli
    cld
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl 0x8000 + ap_gdt_pointer - ap_start
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $0x18, $0x8000 + ap_protected - ap_start
    .code32
ap_protected:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %ss
    movl $ap_stack_end, %esp    /* one of them at a time: who starts the next waits for this one */
    movl $enter_long, %eax
    call *%eax
    ljmp $8, $ap_long
    .align 4
ap_gdt_pointer:
    .word 39
    .long gdt
ap_end:
    .code64
ap_long:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    movl $1, %eax
    lock xaddl %eax, ap_count
    shll $14, %eax              /* 16 KiB of stack each */
    leaq ap_stacks + 0x4000(%rax), %rsp
    xorl %ebp, %ebp
    call ap_main
5:  hlt
    jmp 5b

/* Real mode and back, called from 64-bit mode: `modes_tour(rounds)`. Runs in a copy at 0x9000, so
 * that it is within real mode's reach. Each round: 64-bit -> compatibility -> protected -> real
 * (with an interrupt through the real-mode table) -> protected -> 64-bit. */
    .global tour_start, tour_end, tour_entry
tour_start:
tour_entry:
    pushq %rbx
    pushq %rbp
    movq %rsp, 0x9000 + tour_rsp - tour_start
    movl %edi, 0x9000 + tour_left - tour_start
tour_again:
    pushq $0x18                 /* 32-bit code */
    pushq $0x9000 + tour_compat - tour_start
    lretq
    .code32
tour_compat:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $0x9f00, %esp
    movl %cr0, %eax
    andl $0x7fffffff, %eax      /* paging, and with it long mode, off */
    movl %eax, %cr0
    movl $0xc0000080, %ecx
    rdmsr
    andl $~0x100, %eax
    wrmsr
    ljmp $0x20, $0x9000 + tour_16 - tour_start
    .code16
tour_16:
    movw $0x28, %ax             /* data with a limit of 64 KiB */
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    lidtl 0x9000 + tour_ivt - tour_start
    movl %cr0, %eax
    andl $~1, %eax
    movl %eax, %cr0
    ljmp $0, $0x9000 + tour_real - tour_start
tour_real:
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x9f00, %sp
    movw $0x9000 + tour_handler - tour_start, 0x60 * 4
    movw $0, 0x60 * 4 + 2
    int $0x60
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $0x18, $0x9000 + tour_back - tour_start
tour_handler:
    incl 0x9000 + tour_served - tour_start
    iret
    .code32
tour_back:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %ss
    movl $0x9f00, %esp
    movl $enter_long, %eax
    call *%eax
    ljmp $8, $0x9000 + tour_long - tour_start
    .code64
tour_long:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movq 0x9000 + tour_rsp - tour_start, %rsp
    decl 0x9000 + tour_left - tour_start
    jnz tour_again
    movl 0x9000 + tour_served - tour_start, %eax
    popq %rbp
    popq %rbx
    ret
    .align 8
tour_rsp:   .quad 0
tour_left:  .long 0
tour_served: .long 0
tour_ivt:   .word 0x3ff
            .long 0
tour_end:

    .section .data
    .align 8
    .global gdt
gdt:
    .quad 0
    .quad 0x00af9b000000ffff    /* 0x08: 64-bit code */
    .quad 0x00cf93000000ffff    /* 0x10: data */
    .quad 0x00cf9b000000ffff    /* 0x18: 32-bit code */
    .quad 0x00009b000000ffff    /* 0x20: 16-bit code */
    .quad 0x000093000000ffff    /* 0x28: 16-bit data */
    .global tss_descriptor
tss_descriptor:
    .quad 0, 0                  /* 0x30: task state, filled in by Rust */
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt
    .global start_info
start_info: .quad 0
    .global ap_count
ap_count: .long 0

    .section .bss
    .align 4096
pml4:   .skip 4096
pdpt:   .skip 4096
pds:    .skip 4096 * 4
boot_stack: .skip 65536
boot_stack_end:
ap_stack: .skip 4096
ap_stack_end:
ap_stacks: .skip 16384 * 16
