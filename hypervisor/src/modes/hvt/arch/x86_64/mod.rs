//! An x86_64 guest's first state: 64-bit mode, flat segments, identity-mapped pages.
//!
//! Order: [`setup`] once, after the image is loaded and before the vCPU is made. The memory must
//! be zeroed where the tables go: only entries that are not zero are written.
//!
//! The numbers are Solo5's (v0.12.1 `hvt_cpu_x86_64.h`), because its unikernels rely on them:
//! nothing is mapped below 0x10000, and what the tender hands over above it can only be read.

mod gdt;
mod paging;

use crate::memory::{Gpa, GuestMemory, MemoryError};
use crate::modes::hvt::layout::Layout;
use crate::vcpu::X86State;

/// Where the global descriptor table is.
pub const GDT: Gpa = Gpa(0x1000);
/// Where the root of the page tables is.
pub const PML4: Gpa = Gpa(0x2000);
/// Where the boot information is, and the first address that the guest has mapped.
pub const BOOT_INFO: Gpa = Gpa(0x1_0000);

/// CR0: PE, NE, WP and PG (Intel SDM vol. 3 §2.5).
const CR0: u64 = 1 | 1 << 5 | 1 << 16 | 1 << 31;
/// CR4: PAE, OSFXSR and OSXMMEXCPT.
const CR4: u64 = 1 << 5 | 1 << 9 | 1 << 10;
/// EFER: LME and LMA (Intel SDM vol. 3 §2.2.1).
const EFER: u64 = 1 << 8 | 1 << 10;
/// RFLAGS: only the bit that is always set.
const RFLAGS: u64 = 1 << 1;

/// Writes the descriptor table and the page tables for a guest of this layout, where `memory`
/// reaches down to them (`tables`), and returns the registers that fit.
///
/// A backend that runs its guest without the processor's own paging has no use for the tables,
/// and `tables` is then false; the registers are the same.
///
/// # Errors
/// If the tables are not inside of `memory`.
pub fn setup(
    memory: &GuestMemory,
    layout: &Layout,
    entry: Gpa,
    tables: bool,
) -> Result<X86State, MemoryError> {
    if tables {
        gdt::write(memory)?;
        paging::write(memory, layout.alloc)?;
    }
    Ok(X86State {
        rip: entry.0,
        // The System V ABI wants (rsp + 8) divisible by 16 where a function starts.
        rsp: layout.mem_size - 8,
        rdi: BOOT_INFO.0,
        rflags: RFLAGS,
        cr0: CR0,
        cr3: PML4.0,
        cr4: CR4,
        efer: EFER,
        cs: gdt::CODE,
        data: gdt::DATA,
        tr: gdt::TASK,
        gdt: (GDT.0, gdt::LIMIT),
        ..X86State::default()
    })
}
