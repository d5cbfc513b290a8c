//! Backend `sandbox`: an unmodified HVT guest in user mode, where there is no virtualization
//! hardware.
//!
//! The guest runs in a process of its own, at its own addresses, with its segments' permissions.
//! Ordinary instructions run on the CPU. What is privileged traps; a monitor in the same process
//! (`monitor`) carries it out, delivers exceptions to the guest's own handlers, and answers
//! hypercalls with the very handler that other backends call after an exit. The supervisor, the
//! process that made the VM, only waits for the end.
//!
//! The boundary is a system call filter that is in force before the guest's first instruction:
//! only from the monitor's code, only what the listed host resources need, only on their
//! descriptors. The guest owns everything else in its process; what it does there hurts itself.
//!
//! Limits, each with an error: one vCPU, no page tables of the guest's own, no 32-bit code.

mod child;
mod debug;
mod filter;
mod layout;
mod monitor;
mod report;
mod tsc;
mod vcpu;
mod vm;

pub mod emulate;

pub use debug::debug_rules;
pub use vcpu::SandboxVcpu;
pub use vm::SandboxVm;

use hypervisor::memory::{Gpa, GuestMemory};
use hypervisor::vcpu::{Backend, BackendCaps, BackendError, ExitHandler, VmSpec, X86State};
use rustix::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use tsc::Moment;

/// What a guest's process is left with.
#[derive(Debug, Default)]
pub struct SandboxConfig {
    /// Descriptors that its host resources use; all others are closed in its process.
    pub descriptors: Vec<RawFd>,
    /// The system calls that they make.
    pub rules: Vec<host_linux::confine::Rule>,
    /// Leave hypercall sites as they are, so that each traps, and trace the guest's process. Slow;
    /// for debuggers ([`hypervisor::debug`]), which then see the guest's own code.
    pub keep_code: bool,
}

/// The backend.
pub struct Sandbox {
    config: Arc<SandboxConfig>,
    epoch: Moment,
}

impl Sandbox {
    /// A backend for guests with these resources. The earlier it is made before the first guest
    /// starts, the better the frequency of the guest's cycle counter is known.
    pub fn new(config: SandboxConfig) -> Self {
        Self { config: Arc::new(config), epoch: Moment::now() }
    }
}

impl Backend for Sandbox {
    type Vm = SandboxVm;

    fn name(&self) -> &'static str {
        "sandbox"
    }

    fn capabilities(&self) -> BackendCaps {
        BackendCaps {
            doorbells: false,
            answers_locally: true,
            lowest_gpa: Gpa(layout::LOWEST),
            max_vcpus: 1,
        }
    }

    fn create_vm(&self, spec: VmSpec) -> Result<SandboxVm, BackendError> {
        SandboxVm::new(spec.memory, Arc::clone(&self.config), self.epoch)
    }
}

/// What a guest's process is made of.
struct Child<'a> {
    memory: &'a GuestMemory,
    file: &'a OwnedFd,
    config: &'a SandboxConfig,
    state: X86State,
    handler: Arc<dyn ExitHandler>,
}
