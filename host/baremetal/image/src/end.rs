//! How the machine is left: with a status where it is emulated, or halted.

use crate::cpu::port::{outb, outw};
use crate::log::{Level, line};
use core::arch::asm;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

/// QEMU's `-device isa-debug-exit,iobase=0xf4,iosize=4`: the status is twice the value and one.
const DEBUG_EXIT: u16 = 0xf4;

/// Leaves the machine: QEMU ends with status 33 if all went well, with 35 if not; where nothing
/// takes notice, the CPU halts.
pub fn exit(good: bool) -> ! {
    // SAFETY: nothing else is at this port on a PC.
    unsafe { outb(DEBUG_EXIT, if good { 16 } else { 17 }) };
    // QEMU's q35 without that device: ACPI power-off as its firmware sets it up.
    // SAFETY: on other machines there is nothing at this port.
    unsafe { outw(0x604, 0x2000) };
    halt()
}

/// Stops this CPU for good.
pub fn halt() -> ! {
    loop {
        // SAFETY: with interrupts off nothing wakes it but an NMI.
        unsafe { asm!("cli; hlt", options(nomem, nostack)) };
    }
}

static PANICKED: AtomicBool = AtomicBool::new(false);

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    if !PANICKED.swap(true, Ordering::Relaxed) {
        line(Level::Error, format_args!("{info}"));
    }
    exit(false)
}
