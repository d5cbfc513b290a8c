//! GDT, TSS and IDT: AMD APM vol. 2 §4.8 and §8.9, Intel SDM vol. 3 §3.5 and §6.14.
//!
//! Exceptions run on stacks of their own, so that a bad stack pointer is reported too.

#![allow(unsafe_code)]

use super::trap;
use core::arch::asm;
use core::cell::UnsafeCell;

/// Selectors and descriptors of code and data are those with which the tender starts us, so no
/// segment register needs a reload.
const CODE: u16 = 8;
const TSS: u16 = 24;
const CODE_DESCRIPTOR: u64 = 0x00af_9b00_0000_ffff;
const DATA_DESCRIPTOR: u64 = 0x00cf_9300_0000_ffff;

/// An I/O permission map that starts here, at the end, is empty.
const TSS_BYTES: u16 = 104;
const _: () = assert!(size_of::<TaskState>() == TSS_BYTES as usize);

const VECTORS: usize = 32;
const STACK_BYTES: usize = 16 << 10;
/// NMI and double fault interrupt other handlers, hence their own stack.
const ON_SECOND_STACK: [usize; 2] = [2, 8];

#[repr(C, packed(4))]
struct TaskState {
    reserved0: u32,
    rsp: [u64; 3],
    reserved1: u64,
    ist: [u64; 7],
    reserved2: u64,
    reserved3: u16,
    iomap_base: u16,
}

#[repr(C, align(16))]
struct Tables {
    idt: [[u64; 2]; VECTORS],
    gdt: [u64; 5],
    tss: TaskState,
}

#[repr(C, align(16))]
struct Stacks([[u8; STACK_BYTES]; 2]);

struct Shared<T>(UnsafeCell<T>);

// SAFETY: there is one thread; the CPU reads what `init` wrote before it loaded the tables.
unsafe impl<T> Sync for Shared<T> {}

static TABLES: Shared<Tables> = Shared(UnsafeCell::new(Tables {
    idt: [[0; 2]; VECTORS],
    gdt: [0, CODE_DESCRIPTOR, DATA_DESCRIPTOR, 0, 0],
    tss: TaskState {
        reserved0: 0,
        rsp: [0; 3],
        reserved1: 0,
        ist: [0; 7],
        reserved2: 0,
        reserved3: 0,
        iomap_base: TSS_BYTES,
    },
}));
static STACKS: Shared<Stacks> = Shared(UnsafeCell::new(Stacks([[0; STACK_BYTES]; 2])));

#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

impl Pointer {
    #[allow(clippy::cast_possible_truncation, reason = "tables of a few hundred bytes")]
    fn to<T>(table: *const T) -> Self {
        Self { limit: (size_of::<T>() - 1) as u16, base: table.addr() as u64 }
    }
}

/// Fills the tables in and loads them.
///
/// # Safety
///
/// Once, before anything that may raise an exception.
pub(crate) unsafe fn init() {
    // SAFETY: the one call, on the one thread, before the CPU knows the tables: no other reference.
    let tables = unsafe { &mut *TABLES.0.get() };
    let stacks = STACKS.0.get().addr() as u64;
    tables.tss.ist[0] = stacks + STACK_BYTES as u64;
    tables.tss.ist[1] = stacks + 2 * STACK_BYTES as u64;
    tables.gdt[3..].copy_from_slice(&tss_descriptor(&raw const tables.tss));
    for vector in 0..VECTORS {
        let stack = if ON_SECOND_STACK.contains(&vector) { 2 } else { 1 };
        tables.idt[vector] = gate(trap::entry(vector), stack);
    }
    // SAFETY: the tables are filled in and static.
    unsafe { load(Pointer::to(&raw const tables.gdt), Pointer::to(&raw const tables.idt)) };
}

unsafe fn load(gdt: Pointer, idt: Pointer) {
    // SAFETY: both pointers name filled static tables; selector TSS is an available 64-bit TSS.
    unsafe {
        asm!("lgdt [{}]", in(reg) &raw const gdt, options(nostack, preserves_flags));
        asm!("ltr {:x}", in(reg) TSS, options(nostack, preserves_flags));
        asm!("lidt [{}]", in(reg) &raw const idt, options(nostack, preserves_flags));
    }
}

/// Present, DPL 0, available 64-bit TSS.
fn tss_descriptor(tss: *const TaskState) -> [u64; 2] {
    let base = tss.addr() as u64;
    let limit = size_of::<TaskState>() as u64 - 1;
    let low = limit | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56;
    [low, base >> 32]
}

/// Present, DPL 0, 64-bit interrupt gate on stack `ist`.
fn gate(entry: usize, ist: u64) -> [u64; 2] {
    let entry = entry as u64;
    let selector = u64::from(CODE);
    let low =
        entry & 0xffff | selector << 16 | ist << 32 | 0x8e << 40 | (entry >> 16 & 0xffff) << 48;
    [low, entry >> 32]
}
