//! What a whole machine asks of its backend: an extension of [`crate::vcpu`] for guests with
//! interrupts, several vCPUs and firmware (Type 1 and VirtIO modes).
//!
//! Order of calls: [`MachineBackend::create_machine`], fill its memory, then
//! [`MachineVm::create_machine_vcpu`] for each vCPU; each vCPU is run by a thread of its own.
//! Between two runs, and only then, its owner injects events and reads or sets its state.
//!
//! Who has the local interrupt controllers differs. Where [`MachineVm::local_controllers`] is
//! `Some`, the backend has them itself (KVM's split irqchip), keeps waiting vCPUs inside, and
//! takes interrupts as messages. Where it is `None`, the mode emulates them and gives each vCPU
//! its interrupts by [`MachineVcpu::inject`].

pub mod tsc;

use super::{Backend, BackendError, BackendVcpu, BackendVm, ExitHandler, VcpuState};
use crate::device::MsiMessage;
use alloc::format;
use alloc::sync::Arc;
use core::ops::Range;

/// What a backend is to put into a guest at its next entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A maskable interrupt. Only while [`MachineVcpu::interruptible`].
    Interrupt {
        /// Vector.
        vector: u8,
    },
    /// A non-maskable interrupt. It stays pending in the vCPU until the guest can take it. Two may
    /// wait, because a vCPU that ran would have taken one at once; while one is served, one may.
    Nmi,
}

/// An exception that a backend is to raise in a guest at its next entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exception {
    /// Vector, below 32.
    pub vector: u8,
    /// Error code, for the vectors that have one.
    pub error_code: Option<u32>,
}

impl Exception {
    /// Vectors that push an error code (AMD APM vol. 2 §8.2): #DF, #TS, #NP, #SS, #GP, #PF, #AC,
    /// #CP, #VC, #SX.
    const WITH_CODE: u32 = 0x6022_7d00;
    /// Vectors that no exception has: the NMI's, and reserved ones.
    const NONE: u32 = 0x9fc0_8204;
    const OVERFLOW: u8 = 4;
    const BOUND: u8 = 5;

    /// Checks that a guest can meet this exception; `code_64` says whether it is in 64-bit code. A
    /// processor fails to enter a guest with an event that is impossible (AMD APM vol. 2 §15.20, Intel
    /// SDM vol. 3 §27.2.1.3), and emulated ones differ in what they let pass.
    ///
    /// # Errors
    /// In words, if it is impossible.
    pub fn check(self, code_64: bool) -> Result<(), BackendError> {
        let Self { vector, error_code } = self;
        let is_in = |set: u32| set.checked_shr(vector.into()).is_some_and(|set| set & 1 != 0);
        let why = if vector >= 32 || is_in(Self::NONE) {
            "there is no such exception"
        } else if code_64 && matches!(vector, Self::OVERFLOW | Self::BOUND) {
            "64-bit code has no instruction that raises it"
        } else if is_in(Self::WITH_CODE) != error_code.is_some() {
            "its error code is missing, or it has none"
        } else {
            return Ok(());
        };
        Err(BackendError::new(format!("exception {vector} cannot be raised: {why}")))
    }
}

/// One row of what CPUID tells a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuidEntry {
    /// EAX before.
    pub leaf: u32,
    /// ECX before, where the leaf depends on it.
    pub subleaf: Option<u32>,
    /// EAX, EBX, ECX, EDX after.
    pub registers: [u32; 4],
}

/// A machine's RAM, size and speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineSpec<'a> {
    /// Guest-physical ranges of RAM: page-aligned, ascending, disjoint. Firmware is RAM that
    /// [`BackendVm::protect`] takes the write permission from.
    pub ram: &'a [Range<u64>],
    /// How many vCPUs will be made at most.
    pub vcpus: u32,
    /// x86_64: the frequency of the guest's TSC in kHz; `None`: the host's. [`tsc`] says when it
    /// can be had.
    pub tsc_khz: Option<u32>,
}

/// A backend that can run whole machines.
pub trait MachineBackend: Backend<Vm: MachineVm> {
    /// Makes a VM with zeroed memory, which is not touched before it is used.
    ///
    /// # Errors
    /// If the system cannot provide it.
    fn create_machine(&self, spec: &MachineSpec<'_>) -> Result<Self::Vm, BackendError>;

    /// What CPUID says to a guest that sees everything that this backend can give, before the
    /// mode takes away and adds: the rows of one vCPU.
    ///
    /// # Errors
    /// If the system does not tell.
    fn supported_cpuid(&self) -> Result<alloc::vec::Vec<CpuidEntry>, BackendError>;
}

/// A VM that is a whole machine.
///
/// In it, unlike in a unikernel's VM, a write to memory without write permission is not a
/// [`super::VmExit::MemoryFault`] but a [`super::VmExit::Mmio`] write, which the machine may
/// ignore: firmware writes to ROM.
pub trait MachineVm: BackendVm<Vcpu: MachineVcpu> {
    /// The local interrupt controllers, where the backend has them.
    fn local_controllers(&self) -> Option<Arc<dyn LocalControllers>> {
        None
    }

    /// Makes vCPU number `index` (its local APIC ID), in `state` and with this CPUID. A vCPU that
    /// waits for its start-up message is made all the same; its owner does not run it, or, where
    /// the backend has the local controllers, the backend holds it.
    ///
    /// # Errors
    /// If the system cannot provide it or the number has been used.
    fn create_machine_vcpu(
        &self,
        index: u32,
        cpuid: &[CpuidEntry],
        state: VcpuState,
        handler: Arc<dyn ExitHandler>,
    ) -> Result<Self::Vcpu, BackendError>;
}

/// Local interrupt controllers that a backend has itself.
pub trait LocalControllers: Send + Sync {
    /// Delivers a message-signalled interrupt.
    fn msi(&self, message: MsiMessage);

    /// Drives the line of an external controller (x86: the 8259 pair's INTR, to the first vCPU).
    /// While it is asserted, the vCPU's loop takes the vector from that controller and injects it.
    fn set_external(&self, asserted: bool);

    /// The vectors for which an end of interrupt is to be told ([`super::VmExit::EndOfInterrupt`]):
    /// those of level-triggered lines. A set bit is a vector.
    fn watch_ends(&self, vectors: [u64; 4]);
}

/// A vCPU of a whole machine.
///
/// None of these calls allocates or blocks, except where it says so.
pub trait MachineVcpu: BackendVcpu {
    /// Whether the guest would take a maskable interrupt at its next instruction: it has them
    /// enabled, is in no interrupt shadow, and no event waits already.
    fn interruptible(&self) -> bool;

    /// Gives the guest an event at the next entry. An event that an exit interrupts is given
    /// again by the backend itself.
    fn inject(&mut self, event: Event);

    /// Raises an exception at the next entry, as [`MachineVcpu::inject`] does for other events.
    ///
    /// # Errors
    /// If the guest cannot meet it ([`Exception::check`]), or the backend cannot raise any.
    fn raise(&mut self, exception: Exception) -> Result<(), BackendError> {
        let vector = exception.vector;
        Err(BackendError::new(format!("exception {vector} cannot be raised by this backend")))
    }

    /// Whether the next run is to end with [`super::VmExit::InterruptWindow`] as soon as the
    /// guest is [`MachineVcpu::interruptible`].
    fn request_window(&mut self, wanted: bool);

    /// The task priority that the guest has set by CR8, as the APIC's TPR register (bits 4..8).
    fn task_priority(&self) -> u8;

    /// Sets what CR8 reads: the mode's local APIC has got a new task priority.
    fn set_task_priority(&mut self, priority: u8);

    /// Whether the local APIC is on, where the mode emulates it: CPUID says so (x86: leaf 1, EDX bit
    /// 9), as far as the table has it. It is on from the beginning and after a reset.
    fn show_local_apic(&mut self, on: bool) {
        let _ = on;
    }

    /// The next run ends ([`super::VmExit::Interrupted`]) when the guest sets CR8 to less than
    /// this (1 to 15), because an interrupt waits for that; `None`: no matter what it sets. `false`
    /// if the backend cannot: the mode then looks from time to time.
    fn watch_priority(&mut self, below: Option<u8>) -> bool {
        let _ = below;
        false
    }

    /// The next run ends by this time at the latest ([`super::VmExit::Interrupted`]), in
    /// nanoseconds of the host's monotonic clock. `None`: it does not end by time.
    fn set_deadline(&mut self, monotonic_ns: Option<u64>);

    /// The guest's cycle counter as it would read now (x86: the TSC, scaled and
    /// with its offset).
    fn cycles(&self) -> u64;

    /// Puts the vCPU into a new state: reset, INIT, start-up. Vector and debug registers, and
    /// system registers that the state does not name, get their values at reset.
    ///
    /// # Errors
    /// If the system refuses it.
    fn reset(&mut self, state: &VcpuState) -> Result<(), BackendError>;

    /// The same at a reset of the whole machine, which also undoes what the guest wrote to its TSC
    /// and TSC_ADJUST: the counters of all vCPUs are in step again. (INIT leaves both alone: Intel
    /// SDM vol. 3 table 11-1.)
    ///
    /// # Errors
    /// If the system refuses it.
    fn restart(&mut self, state: &VcpuState) -> Result<(), BackendError> {
        self.reset(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exceptions_that_a_guest_can_meet_are_raised() {
        let possible =
            |vector, error_code, code_64| Exception { vector, error_code }.check(code_64).is_ok();
        for vector in [0, 1, 3, 6, 7, 16, 18, 19, 20] {
            assert!(possible(vector, None, true), "{vector}");
            assert!(!possible(vector, Some(0), true), "{vector}");
        }
        for vector in [8, 10, 11, 12, 13, 14, 17, 21, 29, 30] {
            assert!(possible(vector, Some(0), true), "{vector}");
            assert!(!possible(vector, None, true), "{vector}");
        }
        for vector in [2, 9, 15, 22, 27, 28, 31, 32, 255] {
            assert!(
                !possible(vector, None, false) && !possible(vector, Some(0), false),
                "{vector}"
            );
        }
        for vector in [4, 5] {
            assert!(possible(vector, None, false) && !possible(vector, None, true), "{vector}");
        }
    }
}
