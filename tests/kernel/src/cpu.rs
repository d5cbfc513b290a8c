//! Instructions: the island of inline assembly. Those that may fault say so in their result.

use crate::traps::{self, Faulted};
use core::arch::asm;

/// Reads a byte from a port.
pub fn inb(port: u16) -> u8 {
    let value;
    // SAFETY: port I/O touches no memory of ours; whatever the machine does is what is tested.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack)) };
    value
}

/// Writes a byte to a port.
pub fn outb(port: u16, value: u8) {
    // SAFETY: as for `inb`.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) };
}

/// Reads two bytes from a port.
pub fn inw(port: u16) -> u16 {
    let value;
    // SAFETY: as for `inb`.
    unsafe { asm!("in ax, dx", in("dx") port, out("ax") value, options(nomem, nostack)) };
    value
}

/// Writes two bytes to a port.
pub fn outw(port: u16, value: u16) {
    // SAFETY: as for `inb`.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack)) };
}

/// Reads four bytes from a port.
pub fn inl(port: u16) -> u32 {
    let value;
    // SAFETY: as for `inb`.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack)) };
    value
}

/// Writes four bytes to a port.
pub fn outl(port: u16, value: u32) {
    // SAFETY: as for `inb`.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack)) };
}

/// Runs one instruction (or a few) that may fault: a fault inside is its result. What comes `after`
/// is run in either case.
macro_rules! probe {
    ($code:literal, after $after:literal $(, $($operands:tt)*)?) => {{
        traps::expect();
        // SAFETY: a fault inside goes on behind it: the trap handler restores every register but
        // the instruction pointer, which it takes from what `lea` has stored.
        unsafe {
            core::arch::asm!(
                "lea {resume}, [rip + 2f]",
                "mov [rip + {slot}], {resume}",
                $code,
                "2:",
                $after,
                resume = out(reg) _,
                slot = sym traps::RESUME,
                $($($operands)*)?
            )
        };
        traps::expected()
    }};
    ($code:literal $(, $($operands:tt)*)?) => {
        $crate::cpu::probe!($code, after "" $(, $($operands)*)?)
    };
}
pub(crate) use probe;

/// Reads a model-specific register.
pub fn rdmsr(index: u32) -> Result<u64, Faulted> {
    let (low, high): (u32, u32);
    probe!("rdmsr", in("ecx") index, out("eax") low, out("edx") high)?;
    Ok(u64::from(high) << 32 | u64::from(low))
}

/// Writes a model-specific register.
pub fn wrmsr(index: u32, value: u64) -> Result<(), Faulted> {
    let [low, high] = halves(value);
    probe!("wrmsr", in("ecx") index, in("eax") low, in("edx") high)
}

fn halves(value: u64) -> [u32; 2] {
    #[allow(clippy::cast_possible_truncation)]
    [value as u32, (value >> 32) as u32]
}

/// Reads four bytes of any address.
pub fn read(address: u64) -> Result<u32, Faulted> {
    let value: u32;
    probe!("mov {value:e}, dword ptr [{address}]", value = out(reg) value, address = in(reg) address)?;
    Ok(value)
}

/// Writes four bytes to any address.
pub fn write(address: u64, value: u32) -> Result<(), Faulted> {
    probe!("mov dword ptr [{address}], {value:e}", value = in(reg) value, address = in(reg) address)
}

/// EAX, EBX, ECX, EDX of a CPUID leaf.
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let result = core::arch::x86_64::__cpuid_count(leaf, subleaf);
    [result.eax, result.ebx, result.ecx, result.edx]
}

/// Lets interrupts in.
pub fn enable_interrupts() {
    // SAFETY: every vector has a handler.
    unsafe { asm!("sti", options(nostack)) };
}

/// Keeps interrupts out.
pub fn disable_interrupts() {
    // SAFETY: changes a flag only.
    unsafe { asm!("cli", options(nostack)) };
}

/// Sleeps until there has been an interrupt.
pub fn sleep() {
    // SAFETY: `sti` lets the interrupt in behind `hlt` only, so that none is missed.
    unsafe { asm!("sti", "hlt", options(nostack)) };
}

/// Sleeps and serves interrupts for ever.
pub fn wait_for_interrupts() -> ! {
    loop {
        sleep();
    }
}

/// Stops with interrupts off.
pub fn halt() -> ! {
    loop {
        // SAFETY: nothing is left to do.
        unsafe { asm!("cli", "hlt") };
    }
}

/// Runs for ever with interrupts off.
pub fn spin() -> ! {
    disable_interrupts();
    loop {
        core::hint::spin_loop();
    }
}

/// Resets the machine by its reset control register (Intel ICH9 §13.7.5).
pub fn reset() -> ! {
    outb(0xcf9, 0x02);
    outb(0xcf9, 0x06);
    spin()
}

/// An exception without any handler.
pub fn triple_fault() -> ! {
    let empty = [0u8; 10];
    // SAFETY: the machine is meant to end here.
    unsafe { asm!("lidt [{0}]", "ud2", in(reg) &raw const empty, options(noreturn)) };
}
