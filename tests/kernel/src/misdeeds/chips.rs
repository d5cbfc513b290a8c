//! Garbage for everything that is emulated: ports, memory-mapped chips, configuration space.

use super::Numbers;
use crate::cpu::{inb, inl, inw, outb, outl, outw, read, write};
use crate::println;
use crate::pvh::Boot;

/// Ports whose writes would end the machine as they may: reset control, the keyboard controller's
/// reset, port 92h, ACPI's PM1 registers.
fn ends(port: u16) -> bool {
    matches!(port, 0x64 | 0x92 | 0xcf8..=0xcff | 0x600..=0x60f | 0xb000..=0xb00f | 0xb2 | 0xb3)
}

/// Reads and writes ports in all widths: those where old devices are, and a sample of the rest.
/// Each access costs an exit, and tests run in emulated machines.
pub fn ports(_: &Boot) {
    let mut numbers = Numbers::new(5);
    let mut sum = 0u32;
    for port in (0..0x1000).chain((0x1000..=u16::MAX).step_by(37)) {
        sum = sum.wrapping_add(u32::from(inb(port)) + u32::from(inw(port)) + inl(port));
        if !(port.saturating_sub(3)..=port.saturating_add(3)).any(ends) {
            let [a, b, c, d] = numbers.word().to_le_bytes();
            outb(port, a);
            outw(port, u16::from_le_bytes([b, c]));
            outl(port, numbers.word() | u32::from(d));
        }
    }
    println!("port sum {sum:#x}");
}

/// I/O APIC, local APIC, and the edges around them.
const PAGES: [u64; 6] =
    [0xfec0_0000, 0xfec0_1000, 0xfed0_0000, 0xfee0_0000, 0xfee0_1000, 0xffc0_0000];

/// Writes garbage to every register of the chips in memory, many times, and programs the old
/// ones by their ports.
pub fn garbage(_: &Boot) {
    let mut numbers = Numbers::new(11);
    let mut faults = 0u32;
    for _ in 0..4 {
        for page in PAGES {
            for offset in (0..0x1000).step_by(16) {
                // An INIT or a start-up message to itself would end this kernel.
                let value = match offset {
                    0x300 => numbers.word() & !0x700,
                    _ => numbers.word(),
                };
                faults += u32::from(write(page + offset, value).is_err());
                faults += u32::from(read(page + offset).is_err());
            }
        }
        for register in 0..=255u32 {
            faults += u32::from(write(0xfec0_0000, register).is_err());
            faults += u32::from(write(0xfec0_0010, numbers.word()).is_err());
        }
        for port in (0x20..0x22).chain(0x40..0x44).chain(0x70..0x72).chain(0xa0..0xa2).chain([0x61])
        {
            for _ in 0..64 {
                outb(port, numbers.word().to_le_bytes()[0]);
                inb(port);
            }
        }
    }
    println!("{faults} faults");
}

/// Writes garbage to every register of every function there is, by both ways.
pub fn config_space(_: &Boot) {
    let mut numbers = Numbers::new(13);
    let mut functions = 0u32;
    for function in 0..256u32 {
        let address = 0x8000_0000 | function << 8;
        outl(0xcf8, address);
        if inl(0xcfc) == u32::MAX {
            continue;
        }
        functions += 1;
        for register in (0..256).step_by(4) {
            outl(0xcf8, address | register);
            let before = inl(0xcfc);
            for value in [u32::MAX, 0, numbers.word(), before] {
                outl(0xcfc, value);
            }
        }
        let page = 0xe000_0000 + (u64::from(function) << 12);
        for offset in (0..4096).step_by(4) {
            if let Ok(before) = read(page + offset) {
                let _ = write(page + offset, numbers.word());
                let _ = write(page + offset, before);
            }
        }
    }
    println!("{functions} functions");
}
