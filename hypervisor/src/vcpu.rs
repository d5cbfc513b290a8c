//! The seam between modes and backends: a vCPU answers with small owned values and borrows nothing.
//!
//! Order of calls: [`Backend::create_vm`], fill its memory, [`BackendVm::create_vcpu`], then
//! [`run`], the loop that all backends share. A [`VmExit`] says what the guest did; the
//! [`VmEntry`] that follows carries the answer.
//!
//! Who answers an exit is an [`ExitHandler`]. It is given to the backend when the vCPU is made, so
//! that a backend that runs beside its guest (the sandbox's monitor, a kernel) can answer there,
//! with the same code, and report only the end to the loop.

pub mod machine;

use crate::memory::{Gpa, GuestMemory, Gva, MemoryError, Perms};
use crate::vm::Exits;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

/// How a vCPU goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VmEntry {
    /// From where it is: the first entry, and after an exit that needs no answer.
    Continue,
    /// After an exit that asks for a value ([`VmExit::Io`], [`VmExit::Mmio`],
    /// [`VmExit::ReadMsr`], [`VmExit::Hypercall`]): with this one, zero-extended.
    Data(u64),
    /// After [`VmExit::ReadMsr`] or [`VmExit::WriteMsr`]: there is no such register, or it does
    /// not take that value. The guest gets a general protection fault.
    Refuse,
}

/// What a guest did that its vCPU cannot finish alone. It is moved at every exit, so it is small:
/// six words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VmExit {
    /// Port I/O of 1, 2 or 4 bytes: `Some` writes that value, `None` reads.
    Io {
        /// Port number.
        port: u16,
        /// Width in bytes.
        size: u8,
        /// The value written, if it is a write.
        write: Option<u32>,
    },
    /// An access of 1 to 8 bytes to an address without memory.
    Mmio {
        /// Guest-physical address.
        gpa: Gpa,
        /// Width in bytes.
        size: u8,
        /// The value written, if it is a write.
        write: Option<u64>,
    },
    /// A read of a model-specific register that the backend does not keep itself.
    ReadMsr {
        /// Its number.
        index: u32,
    },
    /// A write to such a register.
    WriteMsr {
        /// Its number.
        index: u32,
        /// The value.
        value: u64,
    },
    /// The guest called its hypervisor by `vmcall` or `vmmcall`, in KVM's convention: number in
    /// RAX, arguments in RBX, RCX, RDX, RSI; the answer goes to RAX. Only where guests have
    /// interrupts ([`machine`]), and only from privilege level 0: the backend itself answers
    /// anybody else with -1 (EPERM), as KVM does.
    Hypercall {
        /// Which call.
        number: u64,
        /// Its arguments.
        arguments: [u64; 4],
    },
    /// The guest can take an interrupt now ([`machine::MachineVcpu::request_window`]).
    InterruptWindow,
    /// An interrupt's service has ended ([`machine::LocalControllers::watch_ends`]).
    EndOfInterrupt {
        /// Its vector.
        vector: u8,
    },
    /// The guest waits for an interrupt.
    Halt,
    /// The guest cannot go on: a triple fault, or the architecture's like.
    Shutdown {
        /// Where it was; `None` where the processor forgets it.
        rip: Option<Gva>,
    },
    /// The guest touched its memory in a way that the memory's permissions forbid.
    MemoryFault {
        /// Where it was.
        rip: Gva,
        /// What it touched, where the backend knows.
        address: Option<Gpa>,
    },
    /// The host asked the vCPU to stop, by a signal or a kick.
    Interrupted,
    /// The handler answered beside the guest and has ended it.
    Ended(Box<Ending>),
}

const _: () = assert!(size_of::<VmExit>() <= 48);

/// One line for a person, without a line feed. It owns its text, so that it can be made where
/// nothing may be allocated.
pub type Line = arrayvec::ArrayString<172>;

/// Makes a [`Line`] of formatted text, cut where it is too long.
pub fn line(text: fmt::Arguments<'_>) -> Line {
    struct Cut(Line);
    impl fmt::Write for Cut {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let mut end = text.len().min(self.0.remaining_capacity());
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            self.0.push_str(&text[..end]);
            Ok(())
        }
    }
    let mut cut = Cut(Line::new());
    // Only a Display implementation that fails by itself can end this early: keep what is there.
    let _ = fmt::write(&mut cut, text);
    cut.0
}

/// How a guest's life ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// By its own wish.
    Exit {
        /// The status it gave.
        status: i32,
        /// Where in its memory it left a hint such as a trap frame; checked to be readable.
        cookie: Option<Gpa>,
    },
    /// By something it may not do or that the host could not do for it.
    Fault(Line),
    /// By the host, from outside.
    Interrupted,
}

/// What an [`ExitHandler`] decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The guest goes on.
    Resume(VmEntry),
    /// The guest has ended.
    End(Ending),
}

/// Answers a guest's exits: what the mode is for.
pub trait ExitHandler: Send + Sync {
    /// Answers one exit. `memory` is the guest's memory as seen from where the handler runs,
    /// which may be another address space than the one where the handler was made.
    fn handle(&self, exit: VmExit, memory: &GuestMemory) -> Answer;

    /// Hears of exits that the backend has answered itself.
    fn answered(&self, exits: &Exits) {
        let _ = exits;
    }
}

/// What a backend can do, for `auto` and for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendCaps {
    /// It can raise an event for a port write without leaving the guest (KVM's ioeventfd).
    pub doorbells: bool,
    /// It answers exits beside the guest, so a hypercall costs less than a context switch.
    pub answers_locally: bool,
    /// The guest's memory starts at this address: what is below cannot be backed.
    pub lowest_gpa: Gpa,
    /// vCPUs per VM.
    pub max_vcpus: u32,
}

/// What a VM needs from its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VmSpec {
    /// RAM from guest-physical address 0, in bytes; a multiple of the page size.
    pub memory: u64,
}

/// An x86 segment register with its hidden part (Intel SDM vol. 3 §3.4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Segment {
    /// Visible selector.
    pub selector: u16,
    /// Base address.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u32,
    /// Type, S, DPL, P, AVL, L, D/B, G as in the descriptor's bits 40..48 and 52..56, packed to
    /// 12 bits: bits 0..8 are the access byte, bits 8..12 the flags.
    pub attributes: u16,
}

impl Segment {
    /// Bit of [`Segment::attributes`]: the limit counts pages.
    const GRANULARITY: u16 = 1 << 11;

    /// The 8 bytes that describe it in a descriptor table; of a system segment's 16, the first.
    pub const fn descriptor(&self) -> u64 {
        let attributes = self.attributes as u64;
        let pages = self.attributes & Self::GRANULARITY != 0;
        let limit = (if pages { self.limit >> 12 } else { self.limit }) as u64;
        (limit & 0xffff)
            | (self.base & 0xff_ffff) << 16
            | (attributes & 0xff) << 40
            | (limit >> 16 & 0xf) << 48
            | (attributes >> 8 & 0xf) << 52
            | (self.base >> 24 & 0xff) << 56
    }
}

/// The state of an x86 vCPU before its first instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct X86State {
    /// Instruction pointer.
    pub rip: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// First argument of the System V ABI.
    pub rdi: u64,
    /// RSI: `boot_params` of Linux's 64-bit boot protocol.
    pub rsi: u64,
    /// RBX: `hvm_start_info` of PVH.
    pub rbx: u64,
    /// RAX: what says that multiboot loaded the kernel.
    pub rax: u64,
    /// RDX: the processor's signature after reset and INIT.
    pub rdx: u64,
    /// Flags.
    pub rflags: u64,
    /// Control registers.
    pub cr0: u64,
    /// Page-table root.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: u64,
    /// Extended feature enable register.
    pub efer: u64,
    /// Code segment.
    pub cs: Segment,
    /// Data segments: SS, DS, ES, FS and GS alike.
    pub data: Segment,
    /// Task register.
    pub tr: Segment,
    /// Base and limit of the GDT.
    pub gdt: (u64, u16),
    /// Base and limit of the IDT.
    pub idt: (u64, u16),
}

/// A vCPU's first state, by architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VcpuState {
    /// x86_64.
    X86(X86State),
}

/// Why a backend failed; not the guest's fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendError {
    /// What was tried, what the system said and what to do, for a person.
    pub text: String,
}

impl BackendError {
    /// An error with these words.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl core::error::Error for BackendError {}

impl From<MemoryError> for BackendError {
    fn from(error: MemoryError) -> Self {
        Self { text: alloc::format!("{error}") }
    }
}

/// A way to run vCPUs.
pub trait Backend: Send + Sync {
    /// Its VMs.
    type Vm: BackendVm;

    /// Its name, as on the command line.
    fn name(&self) -> &'static str;

    /// What it can do.
    fn capabilities(&self) -> BackendCaps;

    /// Makes a VM with zeroed memory. The memory is not touched: pages come when they are used.
    ///
    /// # Errors
    /// If the system cannot provide it.
    fn create_vm(&self, spec: VmSpec) -> Result<Self::Vm, BackendError>;
}

/// A VM of a backend.
pub trait BackendVm: Send + Sync {
    /// Its vCPUs.
    type Vcpu: BackendVcpu;

    /// The guest's memory, to be filled before the first vCPU is made.
    fn memory(&self) -> &GuestMemory;

    /// The same, to restrict what the *host* may do with a range on the guest's behalf. What the
    /// guest itself may do is [`BackendVm::protect`]'s.
    fn memory_mut(&mut self) -> &mut GuestMemory;

    /// Restricts a page-aligned range of the memory for guest and host (W^X of an image's
    /// segments). Call it after the range has been filled and before the first vCPU is made.
    ///
    /// # Errors
    /// If the range is not inside the memory, or the system refuses.
    fn protect(&mut self, range: core::ops::Range<u64>, perms: Perms) -> Result<(), BackendError>;

    /// How fast the guest's cycle counter runs, in Hz (x86: the TSC).
    ///
    /// # Errors
    /// If it cannot be found out.
    fn cycle_frequency(&self) -> Result<u64, BackendError>;

    /// Makes every 4-byte write of 0 to `port` ring a bell instead of leaving the guest. `None`
    /// where the backend cannot: the write is then an exit as any other.
    ///
    /// # Errors
    /// If the system refuses although the backend can.
    fn doorbell(&self, port: u16) -> Result<Option<Arc<dyn Doorbell>>, BackendError> {
        let _ = port;
        Ok(None)
    }

    /// Makes a vCPU that starts in `state` and whose exits `handler` answers.
    ///
    /// # Errors
    /// If the system cannot provide it, or there is one already and more are not supported.
    fn create_vcpu(
        &self,
        state: VcpuState,
        handler: Arc<dyn ExitHandler>,
    ) -> Result<Self::Vcpu, BackendError>;
}

/// A bell that a guest rings without leaving (KVM's ioeventfd).
pub trait Doorbell: Send + Sync {
    /// Blocks until the bell has been rung since the last call. `false` if it never will be again.
    fn wait(&self) -> bool;

    /// Rings it from the host's side, to wake who waits.
    fn ring(&self);

    /// The host's descriptor for it, where it has one, for a list of what a process may use.
    fn descriptor(&self) -> Option<i32> {
        None
    }
}

/// A vCPU of a backend. It is a handle of its own that can move to another thread.
pub trait BackendVcpu: Send {
    /// Runs until the guest does something that the vCPU cannot finish alone.
    ///
    /// # Errors
    /// If the backend itself failed.
    fn run(&mut self, entry: VmEntry) -> Result<VmExit, BackendError>;

    /// The exits that it has answered itself since the last call, if there were any and it counts
    /// them. To be asked between two runs.
    #[inline]
    fn take_answered(&mut self) -> Option<Exits> {
        None
    }
}

/// The loop that all modes and backends share: runs a vCPU until its guest ends.
///
/// # Errors
/// If the backend itself failed.
pub fn run(
    vcpu: &mut impl BackendVcpu,
    handler: &dyn ExitHandler,
    memory: &GuestMemory,
) -> Result<Ending, BackendError> {
    let mut entry = VmEntry::Continue;
    loop {
        let exit = vcpu.run(entry)?;
        if let Some(exits) = vcpu.take_answered() {
            handler.answered(&exits);
        }
        let answer = match exit {
            VmExit::Ended(ending) => Answer::End(*ending),
            exit => handler.handle(exit, memory),
        };
        match answer {
            Answer::Resume(next) => entry = next,
            Answer::End(ending) => return Ok(ending),
        }
    }
}
