/* One entry for each of the 256 vectors: vector and error code on the stack, then trap_common. */

    .section .text
    .align 16
    .global trap_entries
trap_entries:
    .set number, 0
    .rept 256
    .align 16
    .if (number == 8) || (number >= 10 && number <= 14) || (number == 17) || (number == 21) || (number == 29) || (number == 30)
    .else
    pushq $0
    .endif
    pushq $number
    jmp trap_common
    .set number, number + 1
    .endr

trap_common:
    cld
    pushq %rax
    pushq %rcx
    pushq %rdx
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, %rdi
    movq %rsp, %rbp
    subq $528, %rsp
    andq $-16, %rsp
    fxsave (%rsp)
    call trap
    fxrstor (%rsp)
    movq %rbp, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rdx
    popq %rcx
    popq %rax
    addq $16, %rsp
    iretq
