//! The local APIC (Intel SDM vol. 3 chapter 12, AMD APM vol. 2 chapter 16): x2APIC where the
//! processor has it, else its registers in memory.

use super::register::{cpuid, rdmsr, wrmsr};
use crate::memory::space::map_device;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use host_baremetal::paging::Rights;

const APIC_BASE: u32 = 0x1b;
const ENABLE: u64 = 1 << 11;
const X2APIC: u64 = 1 << 10;

/// Registers: offsets in memory; a sixteenth of them, from 0x800, as MSRs.
const ID: u32 = 0x20;
const TASK_PRIORITY: u32 = 0x80;
const END_OF_INTERRUPT: u32 = 0xb0;
const SPURIOUS: u32 = 0xf0;
const COMMAND: u32 = 0x300;
const COMMAND_HIGH: u32 = 0x310;
const LVT_TIMER: u32 = 0x320;
const LVT_LINT0: u32 = 0x350;
const LVT_LINT1: u32 = 0x360;
const LVT_ERROR: u32 = 0x370;
const INITIAL_COUNT: u32 = 0x380;
const CURRENT_COUNT: u32 = 0x390;
const DIVIDE: u32 = 0x3e0;

const MASKED: u32 = 1 << 16;
const TSC_DEADLINE: u32 = 0x6e0;
const DEADLINE_MODE: u32 = 2 << 17;
const NMI: u32 = 4 << 8;
const PENDING: u32 = 1 << 12;

/// Whether the timer can be set to a value of the cycle counter.
static DEADLINE: AtomicBool = AtomicBool::new(false);

/// The registers in memory; null with x2APIC.
static MEMORY: AtomicPtr<u32> = AtomicPtr::new(core::ptr::null_mut());

fn write(register: u32, value: u32) {
    let memory = MEMORY.load(Ordering::Relaxed);
    // SAFETY: the registers of this CPU's own APIC.
    unsafe {
        if memory.is_null() {
            wrmsr(0x800 + register / 16, u64::from(value));
        } else {
            memory.byte_add(usize::try_from(register).unwrap_or(0)).write_volatile(value);
        }
    }
}

#[allow(clippy::cast_possible_truncation)]
fn read(register: u32) -> u32 {
    let memory = MEMORY.load(Ordering::Relaxed);
    // SAFETY: as above.
    unsafe {
        if memory.is_null() {
            rdmsr(0x800 + register / 16) as u32
        } else {
            memory.byte_add(usize::try_from(register).unwrap_or(0)).read_volatile()
        }
    }
}

/// Vectors that the image gives its interrupts.
pub mod vector {
    /// The local timer.
    pub const TIMER: u8 = 0x40;
    /// Another CPU wants this one to look.
    pub const KICK: u8 = 0x41;
    /// The first serial port.
    pub const SERIAL: u8 = 0x42;
    /// A device of the machine.
    pub const DEVICE: u8 = 0x43;
    /// The APIC had no vector in the end.
    pub const SPURIOUS: u8 = 0xff;
}

/// Finds the registers; on the boot CPU, once. `address` is where they are in memory.
pub fn find(address: u64) {
    DEADLINE.store(cpuid(1, 0)[2] & (1 << 24) != 0, Ordering::Relaxed);
    if cpuid(1, 0)[2] & (1 << 21) == 0 {
        let Some(memory) = map_device(address, 4096, Rights::DEVICE) else {
            panic!("no memory to map the local APIC")
        };
        MEMORY.store(memory.cast(), Ordering::Relaxed);
    }
}

/// Sets this CPU's APIC up; gives its ID.
pub fn init() -> u32 {
    let x2apic = MEMORY.load(Ordering::Relaxed).is_null();
    // SAFETY: x2APIC is there, as `find` saw; it may be on already.
    unsafe {
        let base = rdmsr(APIC_BASE) | ENABLE;
        wrmsr(APIC_BASE, base | if x2apic { X2APIC } else { 0 });
    }
    write(SPURIOUS, 0x100 | u32::from(vector::SPURIOUS));
    write(TASK_PRIORITY, 0);
    write(LVT_LINT0, MASKED);
    write(LVT_LINT1, NMI);
    write(LVT_ERROR, MASKED);
    // Divide by 1.
    write(DIVIDE, 0xb);
    let mode = if has_deadline() { DEADLINE_MODE } else { 0 };
    write(LVT_TIMER, mode | u32::from(vector::TIMER));
    if x2apic { read(ID) } else { read(ID) >> 24 }
}

/// Whether the timer can be set to a value of the cycle counter.
pub fn has_deadline() -> bool {
    DEADLINE.load(Ordering::Relaxed)
}

/// Ends the service of an interrupt.
pub fn end_of_interrupt() {
    write(END_OF_INTERRUPT, 0);
}

/// Sets the timer to a value of the cycle counter; 0 stops it. Only with [`has_deadline`].
pub fn set_deadline(cycles: u64) {
    // SAFETY: the processor has it.
    unsafe { wrmsr(TSC_DEADLINE, cycles) };
}

/// Starts the timer for so many of its ticks; 0 stops it. Only without [`has_deadline`].
pub fn set_count(ticks: u32) {
    write(INITIAL_COUNT, ticks);
}

/// The ticks that are left.
pub fn count() -> u32 {
    read(CURRENT_COUNT)
}

/// Sends to the CPU with this ID: what is in bits 0..20 of the command register.
fn command(id: u32, what: u32) {
    let memory = MEMORY.load(Ordering::Relaxed);
    if memory.is_null() {
        // SAFETY: this CPU's own command register.
        unsafe { wrmsr(0x830, u64::from(id) << 32 | u64::from(what)) };
        return;
    }
    write(COMMAND_HIGH, id << 24);
    write(COMMAND, what);
    // It is gone after a few cycles; a broken APIC must not stop the machine.
    for _ in 0..10_000 {
        if read(COMMAND) & PENDING == 0 {
            break;
        }
        core::hint::spin_loop();
    }
}

/// Sends an interrupt.
pub fn send(id: u32, vector: u8) {
    command(id, 1 << 14 | u32::from(vector));
}

/// Sends a non-maskable interrupt to all other CPUs.
pub fn send_nmi_to_others() {
    command(0, 3 << 18 | 1 << 14 | NMI);
}

/// Sends INIT.
pub fn send_init(id: u32) {
    command(id, 1 << 14 | 5 << 8);
}

/// Sends the start-up message: the CPU begins at this page, below 1 MiB.
pub fn send_startup(id: u32, page: u8) {
    command(id, 1 << 14 | 6 << 8 | u32::from(page));
}
