//! What a debugger may do to a vCPU: an extension of [`crate::vcpu`] for backends that can.
//!
//! Order of calls: as for [`BackendVcpu`], with [`DebugVcpu::resume`] in place of
//! [`BackendVcpu::run`]. Registers, memory and breakpoints may be asked for and changed while the
//! vCPU does not run. After [`Stop::Exit`] the exit is answered by the next entry, as ever;
//! after the other stops the next entry is [`VmEntry::Continue`].
//!
//! Register names and order are those of the GDB remote protocol's `i386:x86-64` target.

#[cfg(feature = "gdb")]
pub mod gdb;

use crate::memory::{Gpa, GuestMemory, Gva, MemoryError};
use crate::vcpu::{BackendError, BackendVcpu, VmEntry, VmExit};

/// Number of an x86 breakpoint register: there are four (Intel SDM vol. 3 §17.2).
pub const HARDWARE_BREAKPOINTS: usize = 4;

/// The registers of an x86 vCPU that a debugger shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct X86Registers {
    /// RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP, R8 to R15.
    pub general: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// Selectors of CS, SS, DS, ES, FS, GS. Setting them has no effect.
    pub segments: [u16; 6],
    /// Base of FS: the thread pointer.
    pub fs_base: u64,
    /// Base of GS.
    pub gs_base: u64,
    /// ST0 to ST7, 80 bits each, little-endian.
    pub x87: [[u8; 10]; 8],
    /// x87 control word.
    pub fcw: u16,
    /// x87 status word.
    pub fsw: u16,
    /// XMM0 to XMM15, little-endian.
    pub xmm: [[u8; 16]; 16],
    /// SSE control and status.
    pub mxcsr: u32,
}

/// The registers that a debugger shows, by architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)]
pub enum Registers {
    /// x86_64.
    X86(X86Registers),
}

/// What a breakpoint stops at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakKind {
    /// An instruction, by writing another one over it, which [`DebugVcpu::peek`] does not show.
    Software,
    /// An instruction, by a breakpoint register.
    Hardware,
    /// A write to 1, 2, 4 or 8 bytes, aligned to their number.
    Write {
        /// How many.
        len: u8,
    },
    /// A read of or write to 1, 2, 4 or 8 bytes, aligned to their number.
    Access {
        /// How many.
        len: u8,
    },
}

/// A place to stop at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breakpoint {
    /// What kind.
    pub kind: BreakKind,
    /// Where.
    pub address: Gva,
}

impl Breakpoint {
    /// Its four bits in DR7, R/W below LEN (Intel SDM vol. 3 §17.2.4); `None` where there are no
    /// such bits: a software breakpoint, or a length or alignment that cannot be watched.
    pub fn dr7_condition(self) -> Option<u64> {
        let (access, len) = match self.kind {
            BreakKind::Software => return None,
            BreakKind::Hardware => (0, 1),
            BreakKind::Write { len } => (1, len),
            BreakKind::Access { len } => (3, len),
        };
        let len_bits = match len {
            1 => 0,
            2 => 1,
            4 => 3,
            8 => 2,
            _ => return None,
        };
        self.address.0.is_multiple_of(u64::from(len)).then_some(access | len_bits << 2)
    }
}

/// Why [`DebugVcpu::resume`] returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// As [`BackendVcpu::run`] would have.
    Exit(VmExit),
    /// One instruction has been executed.
    Step,
    /// This breakpoint was reached: before the instruction, after the access.
    Breakpoint(Breakpoint),
}

/// A vCPU that can be debugged.
pub trait DebugVcpu: BackendVcpu {
    /// Makes the vCPU ready for a debugger, in front of its first instruction. Comes before all
    /// other calls, on the thread that makes them, and before the process gives up privileges.
    ///
    /// # Errors
    /// If the backend cannot debug this vCPU.
    fn attach(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    /// Forgets all breakpoints; from here on, [`BackendVcpu::run`] runs the guest.
    ///
    /// # Errors
    /// If the backend itself failed.
    fn detach(&mut self) -> Result<(), BackendError>;

    /// Runs until the guest exits, reaches a breakpoint, or, with `step`, has executed one
    /// instruction. An instruction that exits has been executed when the next entry has answered:
    /// with `step`, that entry then only ends it.
    ///
    /// # Errors
    /// If the backend itself failed.
    fn resume(&mut self, entry: VmEntry, step: bool) -> Result<Stop, BackendError>;

    /// All registers.
    ///
    /// # Errors
    /// If the system does not tell.
    fn registers(&self) -> Result<Registers, BackendError>;

    /// Sets all registers, except where the field says otherwise.
    ///
    /// # Errors
    /// If the system refuses them.
    fn set_registers(&mut self, registers: &Registers) -> Result<(), BackendError>;

    /// Sets a breakpoint. `false` if there is no room for it, or no such memory, or the length
    /// or alignment is not one that the processor can watch. Twice is once.
    ///
    /// # Errors
    /// If the backend itself failed.
    fn insert(&mut self, breakpoint: Breakpoint) -> Result<bool, BackendError>;

    /// Takes a breakpoint away. `false` if it was not there.
    ///
    /// # Errors
    /// If the backend itself failed.
    fn remove(&mut self, breakpoint: Breakpoint) -> Result<bool, BackendError>;

    /// Where the guest has this address now; `None` where it has nothing.
    ///
    /// # Errors
    /// If the backend itself failed.
    fn translate(&self, address: Gva) -> Result<Option<Gpa>, BackendError>;

    /// Writes to the guest's memory whatever its permissions are; where a software breakpoint is,
    /// to what it hides.
    ///
    /// # Errors
    /// If there is no such memory or the system refuses.
    fn poke(&mut self, at: Gpa, bytes: &[u8]) -> Result<(), BackendError>;

    /// Reads the guest's memory as far as its host may.
    ///
    /// # Errors
    /// [`MemoryError`], where there is no such memory or the host may not read it.
    fn peek(&self, memory: &GuestMemory, at: Gpa, to: &mut [u8]) -> Result<(), MemoryError> {
        memory.read_bytes(at, to)
    }
}
