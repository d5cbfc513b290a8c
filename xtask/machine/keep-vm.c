/*
 * keep-vm
 *
 * Holds two KVM VMs, with a vCPU each, until it is killed: one whose local APIC is KVM's and one
 * without. They never run. As long as they are there, other VMs' coming and going makes the kernel
 * rewrite none of its code (the static keys preempt_notifier_key, kvm_has_noapic_vcpu and
 * apic_sw_disabled count them), which QEMU with several CPUs sometimes executes half rewritten.
 * Freestanding: a machine that tests may have no static C library.
 */
enum { SYS_open = 2, SYS_ioctl = 16, SYS_pause = 34, SYS_exit = 60 };
enum { O_RDWR = 2 };
enum { KVM_CREATE_VM = 0xae01, KVM_CREATE_VCPU = 0xae41, KVM_CREATE_IRQCHIP = 0xae60 };

static long call(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c)
                     : "rcx", "r11", "memory");
    return result;
}

static void vm(long kvm, int with_apic)
{
    long vm = call(SYS_ioctl, kvm, KVM_CREATE_VM, 0);

    if (with_apic)
        call(SYS_ioctl, vm, KVM_CREATE_IRQCHIP, 0);
    if (call(SYS_ioctl, vm, KVM_CREATE_VCPU, 0) < 0)
        call(SYS_exit, 1, 0, 0);
}

__attribute__((noreturn)) void _start(void)
{
    long kvm = call(SYS_open, (long)"/dev/kvm", O_RDWR, 0);

    vm(kvm, 0);
    vm(kvm, 1);
    for (;;)
        call(SYS_pause, 0, 0, 0);
}
