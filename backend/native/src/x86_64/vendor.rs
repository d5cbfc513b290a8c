//! What SVM and VMX each do in their own way, and the words that they share for it.
//!
//! Order: [`Vendor::reset`] first; then, as often as wanted, [`Vendor::enter`], and after each of
//! them [`Vendor::interrupted`] and [`Vendor::reason`] once.

use super::cpu::Cpu;
use super::decode::Seg;
use super::memory::{Access, Format};
use super::processor::rdtsc;
use super::regs::Gprs;
use super::tsc::Ratio;
use crate::{HostPhys, Platform};
use alloc::sync::Arc;
use hypervisor::vcpu::{BackendError, Segment, X86State};

/// What an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Interrupt,
    Nmi,
    Exception,
}

/// An event for the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Injection {
    pub vector: u8,
    pub kind: Kind,
    pub error_code: Option<u32>,
}

impl Injection {
    /// An exception without error code.
    pub const fn exception(vector: u8) -> Self {
        Self { vector, kind: Kind::Exception, error_code: None }
    }

    /// An exception with one.
    pub const fn with_code(vector: u8, code: u32) -> Self {
        Self { vector, kind: Kind::Exception, error_code: Some(code) }
    }

    pub const DB: Self = Self::exception(1);
    pub const UD: Self = Self::exception(6);
    pub const GP: Self = Self::with_code(13, 0);
    pub const NMI: Self = Self { vector: 2, kind: Kind::Nmi, error_code: None };
}

/// A port access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Port {
    pub port: u16,
    pub size: u8,
    pub input: bool,
    /// INS or OUTS.
    pub string: bool,
    /// Where the guest goes on, if that is known without decoding the instruction.
    pub next: Option<u64>,
}

/// Why a guest was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// For the host: an interrupt, NMI, SMI or INIT.
    Host,
    Port(Port),
    Cpuid,
    ReadMsr,
    WriteMsr,
    Halt,
    Hypercall,
    WriteXcr,
    WriteCr4,
    WriteCr8,
    /// An instruction without effect here: INVD, WBINVD.
    Skip,
    /// An instruction that does not exist for guests.
    Undefined,
    /// RDPMC.
    Counter,
    /// An access to guest-physical memory that the second-level tables do not allow. `walk`: by
    /// the processor, for the guest's page tables.
    Memory {
        gpa: u64,
        access: Access,
        walk: bool,
    },
    /// The guest can take an interrupt.
    Window,
    /// The guest is about to end its NMI handler.
    NmiEnd,
    /// An access to debug registers.
    DebugRegisters,
    /// An exception that is only looked at, so that it cannot loop in the processor: #DB, #AC.
    Exception(Injection),
    /// The host's hardware has failed.
    MachineCheck,
    Shutdown,
    /// The processor does not accept the guest's state.
    Invalid,
    /// Nobody asked for it.
    Other(u64),
}

/// A vCPU in one vendor's words.
pub(crate) trait Vendor<P: Platform>: Sized + Send + 'static {
    /// Its second-level tables.
    type Tables: Format;
    /// What all its vCPUs share.
    type Shared: Send + Sync + 'static;

    /// A vCPU over second-level tables at `root`; `None` where there is no memory.
    fn new(shared: &Arc<Self::Shared>, root: HostPhys) -> Option<Self>;

    /// Whether the processor scales the TSC for guests.
    fn scales_tsc(shared: &Self::Shared) -> bool;

    /// The largest leaf, as an order.
    fn largest_leaf(shared: &Self::Shared) -> u8;

    /// Makes this CPU ready for guests, once; `false` where there is no memory.
    fn enable(shared: &Self::Shared, cpu: &mut Cpu) -> bool;

    /// Everything as after a reset, but what `state` names. General registers are elsewhere.
    fn reset(&mut self, state: &X86State);

    /// The vCPU comes to a CPU where it was not live: before the first [`Vendor::enter`] there.
    /// `tsc` is what its guest sees of the host's cycle counter.
    ///
    /// # Safety
    /// This CPU is `cpu`, and enabled; interrupts are off.
    unsafe fn arrive(&mut self, cpu: &mut Cpu, tsc: Ratio);

    /// Runs the guest until something happens.
    ///
    /// # Safety
    /// This CPU is `cpu`, where [`Vendor::arrive`] was called and no other vCPU has run since;
    /// interrupts are off; everything else of the guest's registers is in the processor.
    unsafe fn enter(&mut self, cpu: &mut Cpu, gprs: &mut Gprs);

    /// The event whose delivery the exit has interrupted, to be given again.
    fn interrupted(&mut self) -> Option<Injection>;

    /// Why the guest was left.
    fn reason(&mut self) -> Reason;

    /// What the processor tells of an exit that nobody knows, for a person.
    fn describe(&self, reason: Reason) -> BackendError;

    /// Gives the guest an event at the next entry.
    fn inject(&mut self, event: Injection);

    /// Where the instruction ends that left the guest, if the processor tells.
    fn next_rip(&self) -> Option<u64>;

    /// The bytes of the instruction that accessed memory, if the processor tells: up to 15.
    fn instruction(&self) -> Option<&[u8]>;

    fn rip(&self) -> u64;
    fn set_rip(&mut self, value: u64);
    fn rflags(&self) -> u64;
    fn set_rflags(&mut self, value: u64);
    fn cr0(&self) -> u64;
    fn cr3(&self) -> u64;
    fn cr4(&self) -> u64;
    fn set_cr4(&mut self, value: u64);
    fn set_cr2(&mut self, value: u64);
    fn efer(&self) -> u64;
    fn set_efer(&mut self, value: u64);
    fn pat(&self) -> u64;
    fn set_pat(&mut self, value: u64);
    fn dr6(&self) -> u64;
    fn set_dr6(&mut self, value: u64);
    fn dr7(&self) -> u64;
    fn cpl(&self) -> u8;
    fn segment(&self, which: Seg) -> Segment;
    /// CR8.
    fn task_priority(&self) -> u8;
    fn set_task_priority(&mut self, value: u8);
    /// What is added to the host's counter, when that has been scaled.
    fn tsc_offset(&self) -> u64;
    fn set_tsc_offset(&mut self, value: u64);

    /// The guest's counter as it would read now.
    fn tsc(&self, ratio: Ratio) -> u64 {
        ratio.scale(rdtsc()).wrapping_add(self.tsc_offset())
    }

    /// Whether the next instruction is in the shadow of STI or of a load of SS.
    fn shadow(&self) -> bool;
    fn clear_shadow(&mut self);

    /// Whether to leave the guest as soon as it can take an interrupt.
    fn set_window(&mut self, wanted: bool);
    /// Whether to leave the guest at the end of its NMI handler.
    fn set_nmi_end(&mut self, wanted: bool);
    /// Whether to leave the guest when it uses debug registers.
    fn set_debug_exits(&mut self, wanted: bool);

    /// The guest's translations are forgotten before it goes on.
    fn flush(&mut self);
}
