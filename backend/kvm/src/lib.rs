//! vCPUs through Linux KVM: the `kvm` backend.
//!
//! Order of calls: [`Kvm::open`], then [`Kvm::create_vm_probed`] (for `--backend=auto`) or
//! [`hypervisor::vcpu::Backend::create_vm`] (when the user asked for KVM), then as
//! [`hypervisor::vcpu`] says; [`pc`] has whole machines. [`host_can_virtualize`] costs next to
//! nothing and comes before all of it where there is a choice.
//!
//! Implements the KVM API, version 12 (Linux `Documentation/virt/kvm/api.rst`). What depends on
//! the architecture is in `x86_64/`.
//!
//! `ioctl`s after the first instruction of the guest, for who writes a system call filter:
//! `KVM_RUN` always; `KVM_GET_REGS` when a guest ends by a fault; `KVM_SET_USER_MEMORY_REGION`
//! and `KVM_SET_REGS` when a guest has broken its memory's permissions, to find out where (if
//! they are refused, the address is not told); the debugger's only while one is attached.

#![cfg(target_os = "linux")]
#![deny(unsafe_code)]

mod access;
mod doorbell;
mod error;
mod fault;
mod machine;
mod open;
#[cfg(target_arch = "x86_64")]
pub mod pc;
mod run_page;
mod vcpu;
mod vm;

#[cfg(target_arch = "x86_64")]
#[path = "x86_64/mod.rs"]
mod arch;

pub use arch::host_can_virtualize;
pub use open::Kvm;
pub use vcpu::KvmVcpu;
pub use vm::KvmVm;
