//! A vCPU: `KVM_RUN` in, [`VmExit`] out.
//!
//! [`BackendVcpu::run`] allocates nothing and makes one system call, except where the guest has
//! come to its end. An exit that asks (`write: None`) is answered by the next
//! [`VmEntry::Data`]; anything else then reads as 0.

use crate::access::{self, Access, Told};
use crate::error::{errno, refused};
use crate::machine::Machine;
use crate::run_page::{self, Reason};
use crate::{arch, fault};
use hypervisor::memory::{Gpa, GuestMemory, Gva};
use hypervisor::vcpu::{BackendError, BackendVcpu, VmEntry, VmExit};
use kvm_ioctls::VcpuFd;
use rustix::io::Errno;
use std::sync::Arc;

/// A vCPU of a [`crate::KvmVm`].
///
/// Drop order is the order of the fields: the vCPU is closed before the machine, and with it the
/// guest's memory, may go.
pub struct KvmVcpu {
    pub(crate) fd: VcpuFd,
    pending: Pending,
    pub(crate) debug: arch::DebugState,
    /// As it was when this vCPU was made, with the permissions that a fault is measured by.
    pub(crate) memory: GuestMemory,
    pub(crate) machine: Arc<Machine>,
}

/// What has to be done before the guest may go on.
enum Pending {
    Nothing,
    /// An access has been told and not answered yet.
    Access(Access),
    /// The guest has broken its memory's permissions and will not go on.
    Fault {
        rip: Gva,
        address: Option<Gpa>,
    },
}

/// What ends a stretch of running: an exit, or something for a debugger.
pub(crate) enum Stop {
    Exit(VmExit),
    Debug(kvm_bindings::kvm_debug_exit_arch),
}

impl KvmVcpu {
    pub(crate) fn new(fd: VcpuFd, memory: GuestMemory, machine: Arc<Machine>) -> Self {
        let debug = arch::DebugState::default();
        Self { fd, pending: Pending::Nothing, debug, memory, machine }
    }

    /// The byte of the vCPU's shared page that makes the next `KVM_RUN` come back at once
    /// (KVM API §5, `immediate_exit`), for a signal handler to set. It is cleared when that has
    /// happened, and stays mapped as long as the vCPU.
    pub fn immediate_exit(&mut self) -> *mut u8 {
        &raw mut self.fd.get_kvm_run().immediate_exit
    }

    /// Runs until something happens, for the run loop and the debugger alike.
    pub(crate) fn go(&mut self, entry: VmEntry) -> Result<Stop, BackendError> {
        if let Some(exit) = self.settle(entry) {
            return Ok(Stop::Exit(exit));
        }
        if let Err(error) = self.fd.run().map(|_| ()) {
            return self.failed(error).map(Stop::Exit);
        }
        let page_len = self.machine.vm().run_size();
        let run = self.fd.get_kvm_run();
        let reason = run_page::reason(run, page_len);
        match Access::begin(run, reason) {
            Ok(told) => Ok(Stop::Exit(self.tell(told))),
            Err(Reason::Halt) => Ok(Stop::Exit(VmExit::Halt)),
            Err(Reason::Debug(what)) => Ok(Stop::Debug(what)),
            Err(Reason::Shutdown) => {
                Ok(Stop::Exit(VmExit::Shutdown { rip: self.place_of_shutdown()? }))
            }
            Err(other) => Err(unexpected(&other, self.rip().unwrap_or(Gva(0)))),
        }
    }

    /// Finishes what the last exit left open. Some exit if that asks for the next answer.
    fn settle(&mut self, entry: VmEntry) -> Option<VmExit> {
        match std::mem::replace(&mut self.pending, Pending::Nothing) {
            Pending::Nothing => None,
            Pending::Access(access) => {
                let told = access.settle(self.fd.get_kvm_run(), access::answer(entry))?;
                Some(self.tell(told))
            }
            Pending::Fault { rip, address } => {
                self.pending = Pending::Fault { rip, address };
                Some(VmExit::MemoryFault { rip, address })
            }
        }
    }

    fn tell(&mut self, (exit, open): Told) -> VmExit {
        self.pending = open.map_or(Pending::Nothing, Pending::Access);
        exit
    }

    fn failed(&mut self, error: kvm_ioctls::Error) -> Result<VmExit, BackendError> {
        match errno(&error) {
            Errno::INTR | Errno::AGAIN => {
                self.fd.set_kvm_immediate_exit(0);
                Ok(VmExit::Interrupted)
            }
            Errno::FAULT => {
                let (rip, address) = fault::locate(self)?;
                self.pending = Pending::Fault { rip, address };
                Ok(VmExit::MemoryFault { rip, address })
            }
            Errno::HWPOISON => Err(BackendError::new(BROKEN_MEMORY)),
            _ => Err(refused("KVM_RUN")(error)),
        }
    }

    /// `None` where KVM has reset the vCPU, as it does on AMD, whose VMCB is undefined then.
    fn place_of_shutdown(&self) -> Result<Option<Gva>, BackendError> {
        let regs = self.fd.get_regs().map_err(refused("KVM_GET_REGS"))?;
        Ok((!arch::is_reset(&regs)).then_some(Gva(regs.rip)))
    }

    pub(crate) fn rip(&self) -> Result<Gva, BackendError> {
        self.fd.get_regs().map(|regs| Gva(regs.rip)).map_err(refused("KVM_GET_REGS"))
    }
}

/// For `EHWPOISON`.
pub(crate) const BROKEN_MEMORY: &str = "KVM: the guest touched memory of this machine that is broken (machine check): see the kernel \
     log";

/// An exit that no guest can go on from, or that nobody asked for.
pub(crate) fn unexpected(reason: &Reason, rip: Gva) -> BackendError {
    BackendError::new(match *reason {
        Reason::FailEntry { reason } => format!(
            "KVM: entry failure: hw_entry_failure_reason=0x{reason:x}, rip={rip:#x}: the \
             processor refuses the guest's state; try another backend"
        ),
        Reason::Internal { suberror } => format!(
            "KVM: internal error exit: suberror=0x{suberror:x} ({}), rip={rip:#x}: try another \
             backend",
            suberror_text(suberror)
        ),
        Reason::Other(number) => format!(
            "KVM: unhandled exit: exit_reason=0x{number:x}, rip={rip:#x}: this kind of exit was \
             not asked for; please report it"
        ),
        _ => format!("KVM: unhandled exit at rip={rip:#x}; please report it"),
    })
}

/// KVM_INTERNAL_ERROR_* in words.
fn suberror_text(suberror: u32) -> &'static str {
    match suberror {
        kvm_bindings::KVM_INTERNAL_ERROR_EMULATION => {
            "an instruction that KVM would have to emulate and cannot"
        }
        kvm_bindings::KVM_INTERNAL_ERROR_SIMUL_EX => "simultaneous exceptions",
        kvm_bindings::KVM_INTERNAL_ERROR_DELIVERY_EV => "an exit while an event was delivered",
        kvm_bindings::KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON => "an unexpected hardware exit",
        _ => "unknown",
    }
}

impl BackendVcpu for KvmVcpu {
    fn run(&mut self, entry: VmEntry) -> Result<VmExit, BackendError> {
        match self.go(entry)? {
            Stop::Exit(exit) => Ok(exit),
            // Only after a debugger has been here: it left, the guest goes on another time.
            Stop::Debug(_) => Ok(VmExit::Interrupted),
        }
    }
}
