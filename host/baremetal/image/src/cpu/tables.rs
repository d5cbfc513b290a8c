//! Segment and interrupt tables: a GDT and TSS for each CPU, one IDT for all
//! (Intel SDM vol. 3 §3.5, §7.2, §7.14; AMD APM vol. 2 §4.8, §8.9).
//!
//! Exceptions that can come with a bad stack have stacks of their own (IST): double fault, NMI,
//! machine check, and the page fault, which an overflowing stack raises.

use super::exception::STUBS;
use super::interrupt;
use super::local::Local;
use crate::memory::stack::Stack;
use core::arch::asm;
use core::cell::UnsafeCell;
use core::mem::size_of;

/// Selector of the code segment.
pub const CODE: u16 = 0x08;
/// Selector of the data segment.
pub const DATA: u16 = 0x10;
/// Selector of the TSS.
pub const TSS: u16 = 0x18;

/// Stacks for exceptions.
const STACKS: usize = 4;
/// Each is a frame of this order.
const STACK_ORDER: u8 = 1;

/// A 64-bit TSS (APM vol. 2 figure 12-8).
#[repr(C, packed(4))]
struct Tss {
    reserved0: u32,
    rsp: [u64; 3],
    reserved1: u64,
    ist: [u64; 7],
    reserved2: u64,
    reserved3: u16,
    io_map: u16,
}

/// A CPU's tables.
#[repr(C)]
pub struct Tables {
    gdt: [u64; 5],
    tss: Tss,
}

impl Tables {
    /// Empty ones.
    pub const fn new() -> Self {
        let tss = Tss {
            reserved0: 0,
            rsp: [0; 3],
            reserved1: 0,
            ist: [0; 7],
            reserved2: 0,
            reserved3: 0,
            io_map: 104,
        };
        Self { gdt: [0; 5], tss }
    }

    fn fill(&mut self) {
        let base = (&raw const self.tss).addr() as u64;
        let limit = (size_of::<Tss>() - 1) as u64;
        let low = limit | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56;
        self.gdt = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, low, base >> 32];
    }

    fn give_stacks(&mut self) {
        let mut tops = [0; 7];
        for top in &mut tops[..STACKS] {
            let stack = Stack::new(STACK_ORDER).unwrap_or_else(|| panic!("no memory for a CPU"));
            *top = stack.top() as u64;
            core::mem::forget(stack);
        }
        self.tss.ist = tops;
    }
}

/// A 64-bit gate.
#[derive(Clone, Copy)]
#[repr(C)]
struct Gate(u64, u64);

impl Gate {
    const NONE: Self = Self(0, 0);

    /// An interrupt gate: interrupts stay off.
    fn new(handler: u64, ist: u64) -> Self {
        let low = handler & 0xffff | u64::from(CODE) << 16 | ist << 32 | 0x8e << 40;
        Self(low | (handler >> 16 & 0xffff) << 48, handler >> 32)
    }
}

#[repr(C, align(16))]
struct Idt(UnsafeCell<[Gate; 256]>);

// SAFETY: written by the boot CPU only, before there are others.
unsafe impl Sync for Idt {}

static IDT: Idt = Idt(UnsafeCell::new([Gate::NONE; 256]));

/// The stack of an exception: 0 is the one in use, else a number in the TSS.
fn stack_of(vector: usize) -> u64 {
    match vector {
        8 => 1,
        2 => 2,
        18 => 3,
        14 => 4,
        _ => 0,
    }
}

#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

/// Loads this CPU's tables, which `local` holds; exceptions get stacks of their own if `stacks`.
pub fn load(local: &'static Local, stacks: bool) {
    // SAFETY: the tables are this CPU's, with interrupts off; what is loaded already stays valid.
    let tables = unsafe { &mut *local.tables.get() };
    tables.fill();
    if stacks {
        tables.give_stacks();
    }
    let gdt = Pointer { limit: 39, base: tables.gdt.as_ptr().addr() as u64 };
    if local.number == 0 {
        fill_idt(stacks);
    }
    let idt = Pointer { limit: 4095, base: IDT.0.get().addr() as u64 };
    // SAFETY: the GDT has code, data and TSS at these selectors; it lives for ever, and so does
    // the IDT. GS keeps its base, as its selector is not loaded.
    unsafe {
        asm!(
            "lgdt [{gdt}]",
            "push {code}",
            "lea {t}, [rip + 2f]",
            "push {t}",
            "retfq",
            "2:",
            "mov ss, {data:e}",
            "mov ds, {data:e}",
            "mov es, {data:e}",
            "ltr {tss:x}",
            "lidt [{idt}]",
            gdt = in(reg) &raw const gdt,
            idt = in(reg) &raw const idt,
            code = const CODE as u64,
            data = in(reg) u64::from(DATA),
            tss = in(reg) u64::from(TSS),
            t = out(reg) _,
        );
    }
}

/// Fills the IDT. Before there are stacks, exceptions come on the one in use.
fn fill_idt(stacks: bool) {
    // SAFETY: only the boot CPU comes here, while it is alone and with interrupts off.
    let idt = unsafe { &mut *IDT.0.get() };
    for (vector, stub) in STUBS.iter().enumerate() {
        let stack = if stacks { stack_of(vector) } else { 0 };
        idt[vector] = Gate::new(*stub as *const () as u64, stack);
    }
    for (vector, stub) in interrupt::STUBS {
        idt[usize::from(vector)] = Gate::new(stub as *const () as u64, 0);
    }
}
