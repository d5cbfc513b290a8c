//! How the machine is left: with a status where it is emulated, or halted.

use crate::cpu::port::{outb, outw};
use crate::log::{Level, line};
use crate::trace;
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
    if PANICKED.load(Ordering::Relaxed) {
        halt();
    }
    line(Level::Error, format_args!("{info}"));
    let (rip, rbp): (u64, u64);
    // SAFETY: reading registers has no effect.
    unsafe {
        asm!("lea {}, [rip]", "mov {}, rbp", out(reg) rip, out(reg) rbp, options(nomem, nostack));
    }
    with_trace(rip, rbp)
}

/// Prints how it came to this, and leaves the machine.
pub fn with_trace(rip: u64, rbp: u64) -> ! {
    if !PANICKED.swap(true, Ordering::Relaxed) {
        trace::print(rip, rbp);
    }
    exit(false)
}
