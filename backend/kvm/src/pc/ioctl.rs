//! `ioctl`s that kvm-ioctls has not got, or not without allocating (Linux
//! `include/uapi/linux/kvm.h`).

#![allow(unsafe_code)]

use crate::error::refused;
use hypervisor::vcpu::BackendError;
use kvm_bindings::{kvm_msr_entry, kvm_msrs};
use kvm_ioctls::VcpuFd;
use rustix::ioctl::{Opcode, Setter, Updater, opcode};
use std::os::fd::{AsRawFd, BorrowedFd};

const KVM: u8 = 0xae;
/// It takes one 32-bit number.
const KVM_INTERRUPT: Opcode = opcode::write::<u32>(KVM, 0x86);
/// It takes a header and as many entries as that says.
const KVM_GET_MSRS: Opcode = opcode::read_write::<kvm_msrs>(KVM, 0x88);

/// See [`super::IOCTLS`].
pub(super) const USED: &[(u64, &str)] = &[
    (0xae80, "run a vCPU"),
    (0x8090_ae81, "where a vCPU was when it could not go on"),
    (KVM_INTERRUPT as u64, "an interrupt of the 8259 pair"),
    (KVM_GET_MSRS as u64, "a vCPU's cycle counter"),
    (0x4020_aea5, "a message-signalled interrupt"),
    (0x4008_ae6a, "which ends of interrupts are told"),
    (0xae9a, "a non-maskable interrupt"),
    (0x8040_ae9f, "an exception"),
    (0x4040_aea0, "an exception, and a vCPU's reset"),
    (0x8138_ae83, "a vCPU's reset"),
    (0x4138_ae84, "a vCPU's reset"),
    (0x4090_ae82, "a vCPU's reset"),
    (0x4008_ae89, "a vCPU's reset"),
    (0x4400_ae8f, "a vCPU's reset"),
    (0x5000_aea5, "a vCPU's reset"),
    (0x4188_aea7, "a vCPU's reset"),
    (0x4080_aea2, "a vCPU's reset"),
    (0x4004_ae99, "a vCPU's reset"),
];

/// Queues an external interrupt. Only where the guest can take it.
pub(super) fn interrupt(vcpu: &VcpuFd, vector: u8) -> Result<(), BackendError> {
    // SAFETY: the descriptor is open as long as `vcpu`; the opcode reads one `kvm_interrupt`,
    // which is one 32-bit number.
    let done = unsafe {
        let fd = BorrowedFd::borrow_raw(vcpu.as_raw_fd());
        rustix::ioctl::ioctl(fd, Setter::<KVM_INTERRUPT, _>::new(u32::from(vector)))
    };
    done.map_err(|errno| BackendError::new(format!("KVM: KVM_INTERRUPT failed: {errno}")))
}

/// A model-specific register's value, 0 where KVM has none.
pub(super) fn msr(vcpu: &VcpuFd, index: u32) -> u64 {
    #[repr(C)]
    struct One {
        header: kvm_msrs,
        entry: kvm_msr_entry,
    }
    let mut one = One {
        header: kvm_msrs { nmsrs: 1, ..Default::default() },
        entry: kvm_msr_entry { index, ..Default::default() },
    };
    // SAFETY: the descriptor is open as long as `vcpu`; the header says that one entry follows.
    let _ = unsafe {
        let fd = BorrowedFd::borrow_raw(vcpu.as_raw_fd());
        rustix::ioctl::ioctl(fd, Updater::<KVM_GET_MSRS, _>::new(&mut one))
    };
    one.entry.data
}

/// Non-maskable interrupt.
pub(super) fn nmi(vcpu: &VcpuFd) -> Result<(), BackendError> {
    vcpu.nmi().map_err(refused("KVM_NMI"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvm_bindings::*;

    #[test]
    fn numbers_are_the_kernels() {
        let write = |number, size: usize| 0x4000_0000 | (size as u64) << 16 | 0xae00 | number;
        let read = |number, size: usize| 0x8000_0000 | (size as u64) << 16 | 0xae00 | number;
        let numbers: Vec<u64> = USED.iter().map(|(number, _)| *number).collect();
        let expected = [
            0xae80,
            read(0x81, size_of::<kvm_regs>()),
            write(0x86, 4),
            0x4000_0000 | read(0x88, size_of::<kvm_msrs>()),
            write(0xa5, size_of::<kvm_msi>()),
            write(0x6a, size_of::<kvm_irq_routing>()),
            0xae9a,
            read(0x9f, size_of::<kvm_vcpu_events>()),
            write(0xa0, size_of::<kvm_vcpu_events>()),
            read(0x83, size_of::<kvm_sregs>()),
            write(0x84, size_of::<kvm_sregs>()),
            write(0x82, size_of::<kvm_regs>()),
            write(0x89, size_of::<kvm_msrs>()),
            write(0x8f, size_of::<kvm_lapic_state>()),
            write(0xa5, size_of::<kvm_xsave>()),
            write(0xa7, size_of::<kvm_xcrs>()),
            write(0xa2, size_of::<kvm_debugregs>()),
            write(0x99, size_of::<kvm_mp_state>()),
        ];
        assert_eq!(numbers, expected);
    }
}
