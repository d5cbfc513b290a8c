//! What one VM used.

use crate::vcpu::VmExit;
use core::sync::atomic::{AtomicU64, Ordering};

/// Why a vCPU left its guest. What a backend answers itself is there as far as the backend tells it
/// ([`crate::vcpu::BackendVcpu::take_answered`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Cause {
    /// Port I/O.
    Io,
    /// A device in memory.
    Mmio,
    /// RDMSR.
    ReadMsr,
    /// WRMSR.
    WriteMsr,
    /// A hypercall.
    Hypercall,
    /// HLT.
    Halt,
    /// The guest can take an interrupt that waits for it.
    Window,
    /// An interrupt of the host's, or a kick.
    Interrupt,
    /// The end of an interrupt's service.
    EndOfInterrupt,
    /// CPUID.
    Cpuid,
    /// Guest-physical memory without a page as yet: its first touch.
    PageFault,
    /// A control register, or XCR0.
    ControlRegister,
    /// The first use of debug registers since the vCPU came to its CPU.
    DebugRegister,
    /// An exception of the guest's that the backend looks at.
    Exception,
    /// What comes seldom, or ends a run or a guest.
    Other,
}

impl Cause {
    /// Every one, in order.
    pub const ALL: [Self; 15] = [
        Self::Io,
        Self::Mmio,
        Self::ReadMsr,
        Self::WriteMsr,
        Self::Hypercall,
        Self::Halt,
        Self::Window,
        Self::Interrupt,
        Self::EndOfInterrupt,
        Self::Cpuid,
        Self::PageFault,
        Self::ControlRegister,
        Self::DebugRegister,
        Self::Exception,
        Self::Other,
    ];

    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Io => "pio",
            Self::Mmio => "mmio",
            Self::ReadMsr => "rdmsr",
            Self::WriteMsr => "wrmsr",
            Self::Hypercall => "hypercall",
            Self::Halt => "hlt",
            Self::Window => "interrupt_window",
            Self::Interrupt => "interrupt",
            Self::EndOfInterrupt => "eoi",
            Self::Cpuid => "cpuid",
            Self::PageFault => "page_fault",
            Self::ControlRegister => "control_register",
            Self::DebugRegister => "debug_register",
            Self::Exception => "exception",
            Self::Other => "other",
        }
    }
}

impl From<&VmExit> for Cause {
    fn from(exit: &VmExit) -> Self {
        match exit {
            VmExit::Io { .. } => Self::Io,
            VmExit::Mmio { .. } => Self::Mmio,
            VmExit::ReadMsr { .. } => Self::ReadMsr,
            VmExit::WriteMsr { .. } => Self::WriteMsr,
            VmExit::Hypercall { .. } => Self::Hypercall,
            VmExit::Halt => Self::Halt,
            VmExit::InterruptWindow => Self::Window,
            VmExit::Interrupted => Self::Interrupt,
            VmExit::EndOfInterrupt { .. } => Self::EndOfInterrupt,
            VmExit::Shutdown { .. } | VmExit::MemoryFault { .. } | VmExit::Ended(_) => Self::Other,
        }
    }
}

/// Hypercalls are told apart by their numbers below this; all others are the last one.
pub const CALLS: usize = 16;

/// How many exits there were, by their causes. One vCPU's own, or a sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exits {
    causes: [u64; Cause::ALL.len()],
    calls: [u64; CALLS],
}

impl Exits {
    /// Counts an exit.
    #[inline]
    pub fn count(&mut self, exit: &VmExit) {
        self.causes[Cause::from(exit) as usize] += 1;
        if let VmExit::Hypercall { number, .. } = exit {
            self.calls[call_index(*number)] += 1;
        }
    }

    /// How many there were for this cause.
    pub fn of(&self, cause: Cause) -> u64 {
        self.causes[cause as usize]
    }

    /// Hypercalls that there were, by number.
    pub fn calls(&self) -> impl Iterator<Item = (u64, u64)> {
        (0u64..).zip(self.calls).filter(|(_, count)| *count > 0)
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.causes.iter().sum()
    }
}

/// Counters of a backend for what it answers itself, until they are asked for.
#[derive(Debug, Default)]
pub struct Answered {
    any: bool,
    causes: [u64; Cause::ALL.len()],
}

impl Answered {
    /// Counts an exit.
    #[inline]
    pub fn count(&mut self, cause: Cause) {
        self.any = true;
        self.causes[cause as usize] += 1;
    }

    /// What has come since the last call, if anything has.
    #[inline]
    pub fn take(&mut self) -> Option<Exits> {
        self.any.then(|| {
            let Self { causes, .. } = core::mem::take(self);
            Exits { causes, calls: [0; CALLS] }
        })
    }
}

fn call_index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX).min(CALLS - 1)
}

/// Counters of a VM, which its vCPUs add to without a lock.
#[derive(Debug, Default)]
pub struct Accounts {
    causes: [AtomicU64; Cause::ALL.len()],
    calls: [AtomicU64; CALLS],
}

impl Accounts {
    /// Adds a vCPU's exits.
    pub fn add(&self, exits: &Exits) {
        let add = |(sum, count): (&AtomicU64, u64)| match count {
            0 => {}
            count => drop(sum.fetch_add(count, Ordering::Relaxed)),
        };
        self.causes.iter().zip(exits.causes).for_each(add);
        self.calls.iter().zip(exits.calls).for_each(add);
    }

    /// Counts an exit that is no hypercall.
    pub fn count(&self, cause: Cause) {
        self.causes[cause as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a hypercall.
    pub fn count_call(&self, number: u64) {
        self.count(Cause::Hypercall);
        self.calls[call_index(number)].fetch_add(1, Ordering::Relaxed);
    }

    /// Exits so far.
    pub fn exits(&self) -> Exits {
        let load = |sum: &AtomicU64| sum.load(Ordering::Relaxed);
        Exits { causes: self.causes.each_ref().map(load), calls: self.calls.each_ref().map(load) }
    }
}

/// What is known of a VM at one moment. Times are those of the clock that the registry was given,
/// in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// Its state.
    pub state: super::State,
    /// RAM in bytes.
    pub memory: u64,
    /// vCPUs.
    pub vcpus: u32,
    /// When it was created.
    pub created_ns: u64,
    /// When it was last started.
    pub started_ns: Option<u64>,
    /// When it was last stopped.
    pub stopped_ns: Option<u64>,
    /// How long it was running, in all; without the present run.
    pub ran_ns: u64,
    /// Exits of all vCPUs.
    pub exits: Exits,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_stand_where_their_numbers_say() {
        for (place, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, place);
        }
    }

    #[test]
    fn exits_are_counted_by_cause_and_call() {
        let call = |number| VmExit::Hypercall { number, arguments: [0; 4] };
        let mut own = Exits::default();
        for exit in [VmExit::Halt, VmExit::Halt, call(10), call(u64::MAX), call(16)] {
            own.count(&exit);
        }
        let sum = Accounts::default();
        sum.add(&own);
        sum.count(Cause::Io);
        sum.count_call(10);
        let exits = sum.exits();
        assert_eq!((exits.of(Cause::Halt), exits.of(Cause::Hypercall), exits.total()), (2, 4, 7));
        assert_eq!(exits.calls().collect::<alloc::vec::Vec<_>>(), [(10, 2), (15, 2)]);
    }

    #[test]
    fn what_a_backend_answered_is_told_once() {
        let mut answered = Answered::default();
        assert_eq!(answered.take(), None);
        for cause in [Cause::Cpuid, Cause::Cpuid, Cause::Other] {
            answered.count(cause);
        }
        let exits = answered.take().unwrap();
        assert_eq!((exits.of(Cause::Cpuid), exits.of(Cause::Other), exits.total()), (2, 1, 3));
        assert_eq!(answered.take(), None);
    }
}
