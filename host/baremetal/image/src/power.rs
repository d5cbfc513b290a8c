//! Power-off and reset, by ACPI and else by what PCs have had for long.

use crate::cpu::port::{inw, outb, outw};
use crate::end::halt;
use crate::log::warning;
use crate::memory::space::map_device;
use crate::time;
use host_baremetal::acpi::fadt::{Fadt, Register};
use host_baremetal::acpi::sleep;
use host_baremetal::paging::Rights;
use hypervisor::sync::Mutex;

/// Bytes of a DSDT that are searched at most.
const MAX_DSDT: u64 = 4 << 20;
const SLEEP_ENABLE: u16 = 1 << 13;
const ACPI_MODE: u16 = 1;

static FADT: Mutex<Option<Fadt>> = Mutex::new(None);

/// Takes note of the registers.
pub fn init(fadt: Option<Fadt>) {
    *FADT.lock() = fadt;
}

/// Switches the machine off.
pub fn off() -> ! {
    // Who panics may have held the lock.
    let fadt = FADT.try_lock().and_then(|fadt| *fadt);
    if let Some((fadt, (a, b))) = fadt.and_then(|fadt| Some((fadt, sleep_types(&fadt)?))) {
        enable_acpi(&fadt);
        // SAFETY: these registers switch the machine off; nothing is needed any more.
        unsafe {
            outw(fadt.control_a, a << 10 | SLEEP_ENABLE);
            if let Some(port) = fadt.control_b {
                outw(port, b << 10 | SLEEP_ENABLE);
            }
        }
    }
    // The machine may take a moment.
    let end = time::now().saturating_add(1_000_000_000);
    while time::now() < end {
        core::hint::spin_loop();
    }
    warning!("the machine does not power off by ACPI: it can be switched off now");
    halt()
}

/// The values of the DSDT.
fn sleep_types(fadt: &Fadt) -> Option<(u16, u16)> {
    let header = map_device(fadt.dsdt, 36, Rights::CONSTANT)?;
    // SAFETY: just mapped; the length is the header's second word.
    let length = unsafe { header.add(4).cast::<u32>().read_unaligned() };
    let length = u64::from(length).min(MAX_DSDT);
    let table = map_device(fadt.dsdt, length, Rights::CONSTANT)?;
    // SAFETY: just mapped as long as that, and constant.
    let bytes = unsafe { core::slice::from_raw_parts(table, usize::try_from(length).ok()?) };
    sleep::power_off(bytes)
}

/// Hands the hardware over to us, if the firmware still has it.
fn enable_acpi(fadt: &Fadt) {
    let Some((port, value)) = fadt.enable else { return };
    // SAFETY: the port is there for this.
    unsafe {
        if inw(fadt.control_a) & ACPI_MODE == 0 {
            outb(port, value);
        }
    }
    for _ in 0..1_000_000 {
        // SAFETY: reading has no effect.
        if unsafe { inw(fadt.control_a) } & ACPI_MODE != 0 {
            break;
        }
        core::hint::spin_loop();
    }
}

/// Starts the machine anew.
pub fn reset() -> ! {
    let fadt = FADT.try_lock().and_then(|fadt| *fadt);
    // SAFETY: these registers reset the machine; nothing is needed any more.
    unsafe {
        match fadt.and_then(|fadt| fadt.reset) {
            Some((Register::Port(port), value)) => outb(port, value),
            Some((Register::Memory(at), value)) => {
                if let Some(register) = map_device(at, 1, Rights::DEVICE) {
                    register.write_volatile(value);
                }
            }
            None => {}
        }
        // The chipset's reset register, then the keyboard controller.
        outb(0xcf9, 2);
        outb(0xcf9, 6);
        outb(0x64, 0xfe);
    }
    halt()
}
