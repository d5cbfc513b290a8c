/* What the compiler calls and the library of this target leaves to others: System V ABI. */

    .section .text
    .global memcpy, memmove, memset, memcmp, bcmp, strlen, rust_eh_personality
memcpy:
    movq %rdi, %rax
    movq %rdx, %rcx
    rep movsb
    ret

memmove:
    movq %rdi, %rax
    movq %rdi, %r8
    subq %rsi, %r8
    cmpq %rdx, %r8
    jae 1f                      /* the destination does not begin inside of the source */
    leaq -1(%rdi, %rdx), %rdi
    leaq -1(%rsi, %rdx), %rsi
    movq %rdx, %rcx
    std
    rep movsb
    cld
    ret
1:  movq %rdx, %rcx
    rep movsb
    ret

memset:
    movq %rdi, %r8
    movl %esi, %eax
    movq %rdx, %rcx
    rep stosb
    movq %r8, %rax
    ret

memcmp:
bcmp:
    xorl %eax, %eax
    xorl %ecx, %ecx
2:  cmpq %rdx, %rcx
    je 3f
    movzbl (%rdi, %rcx), %eax
    movzbl (%rsi, %rcx), %r8d
    incq %rcx
    subl %r8d, %eax
    je 2b
3:  ret

strlen:
    xorl %eax, %eax
4:  cmpb $0, (%rdi, %rax)
    je 5f
    incq %rax
    jmp 4b
5:  ret

/* Named by the library's unwinding tables; a panic here never unwinds. */
rust_eh_personality:
    ud2
