//! The registers that a user process has not got, and those that it has.

use core::mem::offset_of;
use hypervisor::memory::{Gpa, GuestMemory};
use hypervisor::vcpu::{Segment, X86State};

/// General registers in encoding order: RAX RCX RDX RBX RSP RBP RSI RDI R8..R15.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Regs {
    /// By encoding.
    pub gpr: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags as the real CPU has them: IF is not the guest's.
    pub rflags: u64,
    /// Base of FS.
    pub fs_base: u64,
    /// Base of GS.
    pub gs_base: u64,
}

impl Regs {
    pub(super) const RAX: usize = 0;
    pub(super) const RCX: usize = 1;
    pub(super) const RDX: usize = 2;
    /// Index of the stack pointer.
    pub const RSP: usize = 4;

    /// Puts the answer of an `in` of `size` bytes where the CPU would: 4 bytes clear the rest.
    pub fn set_port_answer(&mut self, size: u8, value: u64) {
        let rax = &mut self.gpr[Self::RAX];
        *rax = match size {
            1 => *rax & !0xff | value & 0xff,
            2 => *rax & !0xffff | value & 0xffff,
            _ => value & 0xffff_ffff,
        };
    }
}

/// An exception vector (Intel SDM vol. 3 §6.15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vector {
    /// Its number.
    pub number: u8,
    /// The error code that it pushes, if it has one.
    pub error: Option<u32>,
}

impl Vector {
    /// Invalid opcode.
    pub const UD: Self = Self { number: 6, error: None };
    /// Double fault.
    pub const DF: Self = Self { number: 8, error: Some(0) };

    /// General protection.
    pub const fn gp(error: u32) -> Self {
        Self { number: 13, error: Some(error) }
    }

    /// Page fault; the address goes to CR2.
    pub const fn pf(error: u32) -> Self {
        Self { number: 14, error: Some(error) }
    }

    /// An exception of the real CPU with its error code, as a guest in ring 0 would see it.
    pub fn hardware(number: u8, error: u32) -> Self {
        let has_error = matches!(number, 8 | 10..=14 | 17 | 21);
        // The user bit of a page fault's error code is ours, not the guest's.
        let error = if number == 14 { error & !4 } else { error };
        Self { number, error: has_error.then_some(error) }
    }
}

/// Base and limit of a descriptor table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Table {
    /// Linear address.
    pub base: u64,
    /// Last valid byte.
    pub limit: u16,
}

/// System registers of the guest.
#[derive(Debug, Clone)]
pub struct Cpu {
    pub(super) gdt: Table,
    pub(super) idt: Table,
    pub(super) tss: Table,
    pub(super) tr: u16,
    pub(super) cs: u16,
    pub(super) data: [u16; 6],
    pub(super) cr0: u64,
    /// Address of the last page fault.
    pub cr2: u64,
    pub(super) cr3: u64,
    pub(super) cr4: u64,
    pub(super) efer: u64,
    pub(super) interrupts: bool,
    pub(super) kernel_gs_base: u64,
    boot_gdt: (u64, [u64; 3]),
}

impl Cpu {
    /// Where a debugger, which looks from another process, finds the interrupt flag.
    pub(crate) const INTERRUPTS_AT: usize = offset_of!(Self, interrupts);
    /// As above: the selector of CS.
    pub(crate) const CS_AT: usize = offset_of!(Self, cs);
    /// As above: the selectors of ES, -, SS, DS, FS, GS.
    pub(crate) const DATA_AT: usize = offset_of!(Self, data);

    /// The state in which the tender starts a guest.
    pub fn new(state: &X86State) -> Self {
        Self {
            gdt: Table { base: state.gdt.0, limit: state.gdt.1 },
            idt: Table::default(),
            tss: Table { base: state.tr.base, limit: 0 },
            tr: state.tr.selector,
            cs: state.cs.selector,
            data: [state.data.selector; 6],
            cr0: state.cr0,
            cr2: 0,
            cr3: state.cr3,
            cr4: state.cr4,
            efer: state.efer,
            interrupts: false,
            kernel_gs_base: 0,
            boot_gdt: (state.gdt.0, [0, descriptor(&state.cs), descriptor(&state.data)]),
        }
    }

    /// The guest's flags: the real ones, with its own interrupt flag.
    pub(super) fn flags(&self, regs: &Regs) -> u64 {
        let flags = regs.rflags & !IF | 2;
        if self.interrupts { flags | IF } else { flags }
    }

    /// Sets the guest's flags; the real interrupt flag stays the host's.
    pub(super) fn set_flags(&mut self, regs: &mut Regs, flags: u64) {
        self.interrupts = flags & IF != 0;
        regs.rflags = flags & USER_FLAGS | IF | 2;
    }

    /// The descriptor that a selector names, or `None` where it names none.
    ///
    /// The tender's own GDT lies below the memory that the sandbox backs, so it is kept here.
    pub(super) fn descriptor(&self, selector: u16, memory: &GuestMemory) -> Option<u64> {
        let offset = u64::from(selector & !7);
        let is_null = offset == 0;
        let in_ldt = selector & 4 != 0;
        if is_null || in_ldt || offset + 7 > u64::from(self.gdt.limit) {
            return None;
        }
        let (boot_base, entries) = &self.boot_gdt;
        if self.gdt.base == *boot_base {
            return entries.get(usize::try_from(offset / 8).ok()?).copied();
        }
        memory.read_obj(Gpa(self.gdt.base.checked_add(offset)?)).ok()
    }
}

/// Interrupt flag.
pub(super) const IF: u64 = 1 << 9;
/// Flags that user mode may change: CF PF AF ZF SF TF DF OF AC ID.
const USER_FLAGS: u64 = 0x0024_0dd5;

/// A segment as a GDT entry with a flat limit (Intel SDM vol. 3 §3.4.5).
fn descriptor(segment: &Segment) -> u64 {
    let attributes = u64::from(segment.attributes);
    let access = attributes & 0xff;
    let flags = attributes >> 8 & 0xf;
    0xffff | access << 40 | 0xf << 48 | flags << 52
}
