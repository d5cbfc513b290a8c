//! How the machine is left: with a status where it is emulated, or halted.

use crate::cpu::port::outb;
use crate::cpu::{apic, local};
use crate::log::{Level, line};
use crate::{power, trace};
use core::arch::asm;
use core::fmt::Write;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

/// QEMU's `-device isa-debug-exit,iobase=0xf4,iosize=4`: the status is twice the value and one.
const DEBUG_EXIT: u16 = 0xf4;

/// Leaves the machine: QEMU ends with status 33 if all went well, with 35 if not; where nothing
/// takes notice, the CPU halts.
pub fn exit(good: bool) -> ! {
    if !good && RESET.load(Ordering::Relaxed) {
        power::reset();
    }
    // SAFETY: nothing else is at this port on a PC.
    unsafe { outb(DEBUG_EXIT, if good { 16 } else { 17 }) };
    halt()
}

/// QEMU's `-debugcon`. On other machines nothing is there.
const DEBUG_CONSOLE: u16 = 0xe9;

/// What whoever runs this in an emulator is told of a guest's end: a line for each.
pub enum Told<'a> {
    /// `status N`.
    Status(i32),
    /// `failure TEXT`: it ended otherwise than by its own wish.
    Failure(&'a str),
}

/// Tells it.
pub fn tell(what: &Told<'_>) {
    let _ = match what {
        Told::Status(status) => writeln!(DebugConsole, "status {status}"),
        Told::Failure(text) => writeln!(DebugConsole, "failure {text}"),
    };
}

struct DebugConsole;

impl Write for DebugConsole {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for byte in text.bytes() {
            // SAFETY: no device of a PC is at this port.
            unsafe { outb(DEBUG_CONSOLE, byte) };
        }
        Ok(())
    }
}

/// The machine stops: other CPUs too.
fn stop_others() {
    if local::count() > 1 {
        apic::send_nmi_to_others();
    }
}

/// This program fails: from now on messages wait for nobody. Only the first failure is told.
pub fn begin_failure() {
    if PANICKED.swap(true, Ordering::Relaxed) {
        halt();
    }
}

/// Whether this program has failed, on some CPU.
pub fn has_failed() -> bool {
    PANICKED.load(Ordering::Relaxed)
}

/// Stops this CPU for good.
pub fn halt() -> ! {
    loop {
        // SAFETY: with interrupts off nothing wakes it but an NMI.
        unsafe { asm!("cli; hlt", options(nomem, nostack)) };
    }
}

/// Whether a failure resets the machine.
static RESET: AtomicBool = AtomicBool::new(false);

/// Says whether a failure resets the machine, or halts it.
pub fn set_after_failure(reset: bool) {
    RESET.store(reset, Ordering::Relaxed);
}

static PANICKED: AtomicBool = AtomicBool::new(false);

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    begin_failure();
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
    stop_others();
    trace::print(rip, rbp);
    exit(false)
}
