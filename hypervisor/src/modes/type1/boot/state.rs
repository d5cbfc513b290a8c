//! The states in which a machine's processors start: 64-bit mode for Linux, protected mode for
//! PVH and multiboot, and the state after reset for firmware.
//!
//! Sources: Linux `Documentation/arch/x86/boot.rst` "64-bit Boot Protocol"; Xen
//! `public/arch-x86/hvm/start_info.h`; Intel SDM vol. 3 §10.1.1, AMD APM vol. 2 §14.1.3.

use super::place::{GDT, PAGE_TABLES, STACK};
use crate::memory::{Gpa, GuestMemory, MemoryError};
use crate::vcpu::{Segment, X86State};

/// 64-bit code, readable: Linux's `__BOOT_CS`.
const CODE64: Segment = Segment { selector: 0x10, base: 0, limit: 0xffff_ffff, attributes: 0xa9b };
/// Flat 32-bit code.
const CODE32: Segment = Segment { selector: 0x10, base: 0, limit: 0xffff_ffff, attributes: 0xc9b };
/// Flat data: Linux's `__BOOT_DS`.
const DATA: Segment = Segment { selector: 0x18, base: 0, limit: 0xffff_ffff, attributes: 0xc93 };
/// A busy task state segment, which virtualized processors must have.
const TASK: Segment = Segment { selector: 0, base: 0, limit: 0x67, attributes: 0x8b };
/// Limit of the table: null, unused, code, data.
const GDT_LIMIT: u16 = 4 * 8 - 1;

const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
const CR0_NE: u64 = 1 << 5;
const CR0_WP: u64 = 1 << 16;
const CR0_NW: u64 = 1 << 29;
const CR0_CD: u64 = 1 << 30;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const RFLAGS: u64 = 1 << 1;

const PRESENT_WRITABLE: u64 = 0b11;
const LARGE: u64 = 1 << 7;
const PAGE: u64 = 0x1000;
const LARGE_PAGE: u64 = 0x20_0000;

/// 64-bit mode at `entry` with the first 4 GiB mapped to themselves. `boot_params` is in RSI.
///
/// # Errors
/// If there is no memory where the tables go.
pub fn long_mode(
    memory: &GuestMemory,
    entry: u64,
    boot_params: Gpa,
) -> Result<X86State, MemoryError> {
    write_gdt(memory, GDT, &CODE64)?;
    write_page_tables(memory)?;
    Ok(X86State {
        rip: entry,
        rsp: STACK.0,
        rsi: boot_params.0,
        rflags: RFLAGS,
        cr0: CR0_PE | CR0_ET | CR0_NE | CR0_WP | CR0_PG,
        cr3: PAGE_TABLES.0,
        cr4: CR4_PAE,
        efer: EFER_LME | EFER_LMA,
        cs: CODE64,
        data: DATA,
        tr: TASK,
        gdt: (GDT.0, GDT_LIMIT),
        ..X86State::default()
    })
}

/// 32-bit protected mode without paging at `entry`, the descriptor table at `gdt`. The boot
/// information `info` is in EBX.
///
/// # Errors
/// If there is no memory where the descriptor table goes.
pub fn protected_mode(
    memory: &GuestMemory,
    gdt: Gpa,
    entry: u32,
    info: Gpa,
) -> Result<X86State, MemoryError> {
    write_gdt(memory, gdt, &CODE32)?;
    Ok(X86State {
        rip: entry.into(),
        rsp: STACK.0,
        rbx: info.0,
        rflags: RFLAGS,
        cr0: CR0_PE | CR0_ET,
        cs: CODE32,
        data: DATA,
        tr: TASK,
        gdt: (gdt.0, GDT_LIMIT),
        ..X86State::default()
    })
}

/// The state after reset: real mode, 16 bytes below 4 GiB. `signature` is CPUID 1's EAX.
pub fn reset(signature: u32) -> X86State {
    X86State {
        rip: 0xfff0,
        rdx: signature.into(),
        rflags: RFLAGS,
        cr0: CR0_CD | CR0_NW | CR0_ET,
        cs: Segment { selector: 0xf000, base: 0xffff_0000, limit: 0xffff, attributes: 0x9b },
        data: Segment { selector: 0, base: 0, limit: 0xffff, attributes: 0x93 },
        tr: Segment { selector: 0, base: 0, limit: 0xffff, attributes: 0x8b },
        gdt: (0, 0xffff),
        idt: (0, 0xffff),
        ..X86State::default()
    }
}

fn write_gdt(memory: &GuestMemory, gdt: Gpa, code: &Segment) -> Result<(), MemoryError> {
    memory.write_obj(gdt, &[0, 0, code.descriptor(), DATA.descriptor()])
}

/// A root, one page-directory-pointer table, four page directories: 2 MiB pages, 4 GiB.
fn write_page_tables(memory: &GuestMemory) -> Result<(), MemoryError> {
    let at = |page: u64| PAGE_TABLES.0 + page * PAGE;
    memory.write_obj(Gpa(at(0)), &(at(1) | PRESENT_WRITABLE))?;
    for gib in 0..4 {
        memory.write_obj(Gpa(at(1) + gib * 8), &(at(2 + gib) | PRESENT_WRITABLE))?;
        let directory: [u64; 512] = core::array::from_fn(|i| {
            ((gib << 30) + i as u64 * LARGE_PAGE) | PRESENT_WRITABLE | LARGE
        });
        memory.write_obj(Gpa(at(2 + gib)), &directory)?;
    }
    Ok(())
}
