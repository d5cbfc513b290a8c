//! The machine's clocks, for guests.

use crate::cpu::port::{inb, outb};
use crate::time;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use host_baremetal::acpi::fadt::Fadt;
use host_baremetal::rtc::Registers;
use hypervisor::host::Clock;

const NS: u64 = 1_000_000_000;
/// Register A: the others change just now.
const CHANGING: u8 = 0x80;
/// Looks at the chip until it stands still; it does for all but 2 ms of a second.
const PATIENCE: u32 = 100_000;

/// Wall time minus [`time::now`]; 0 until the clock chip was read.
static WALL: AtomicU64 = AtomicU64::new(0);
/// The chip's register of the century; 0 where it has none.
static CENTURY: AtomicU8 = AtomicU8::new(0);

/// What ACPI says of the chip. To be called before the clock is read.
pub fn init(fadt: Option<&Fadt>) {
    let century = fadt.and_then(|fadt| fadt.century);
    CENTURY.store(century.unwrap_or(0), Ordering::Relaxed);
}

/// The machine's clocks.
pub struct MachineClock;

impl Clock for MachineClock {
    fn wall_ns(&self) -> u64 {
        let mut offset = WALL.load(Ordering::Relaxed);
        if offset == 0 {
            offset = read_chip().saturating_mul(NS).saturating_sub(time::now()).max(1);
            // Whoever was first has the say: the clock never goes back.
            let first = WALL.compare_exchange(0, offset, Ordering::Relaxed, Ordering::Relaxed);
            offset = first.err().unwrap_or(offset);
        }
        offset.saturating_add(time::now())
    }

    fn monotonic_ns(&self) -> u64 {
        time::now()
    }
}

fn register(index: u8) -> u8 {
    // SAFETY: the clock chip's own ports; NMIs stay on.
    unsafe {
        outb(0x70, index);
        inb(0x71)
    }
}

/// Seconds since 1970, or 0 where the chip shows no time.
fn read_chip() -> u64 {
    let century = CENTURY.load(Ordering::Relaxed);
    let registers = || Registers {
        second: register(0),
        minute: register(2),
        hour: register(4),
        day: register(7),
        month: register(8),
        year: register(9),
        century: (century != 0).then(|| register(century)),
        form: register(0xb),
    };
    for _ in 0..PATIENCE {
        if register(0xa) & CHANGING != 0 {
            core::hint::spin_loop();
            continue;
        }
        let first = registers();
        if first == registers() {
            return first.seconds().unwrap_or(0);
        }
    }
    0
}
