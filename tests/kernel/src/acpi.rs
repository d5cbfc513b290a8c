//! Just enough ACPI to power off (ACPI 6.5 §5.2.5, §5.2.7 to §5.2.9, §7.4.2): root pointer, FADT,
//! and the sleep type in the DSDT's `_S5` package, found by its name.

use crate::cpu::{halt, outw};
use crate::println;
use crate::pvh::{Boot, address};

/// SLP_EN of PM1 control.
const SLP_EN: u16 = 1 << 13;
/// Offsets in the FADT.
const FADT_DSDT: usize = 40;
const FADT_PM1A_CONTROL: usize = 64;

/// Turns the machine off.
pub fn power_off(boot: &Boot) -> ! {
    match sleep_register(boot.rsdp) {
        Some((port, sleep_type)) => outw(port, sleep_type << 10 | SLP_EN),
        None => println!("test-kernel: no ACPI tables: cannot power off"),
    }
    halt()
}

fn sleep_register(rsdp: u64) -> Option<(u16, u16)> {
    if rsdp == 0 {
        return None;
    }
    let fadt = tables(address(rsdp)).find(|table| signature(*table) == *b"FACP")?;
    let port = u16::try_from(read::<u32>(fadt + FADT_PM1A_CONTROL)).ok()?;
    let dsdt = address(u64::from(read::<u32>(fadt + FADT_DSDT)));
    Some((port, sleep_type(dsdt)?))
}

/// The tables that the root pointer leads to: by the XSDT, or by ACPI 1.0's RSDT.
fn tables(rsdp: usize) -> impl Iterator<Item = usize> {
    let wide = read::<u8>(rsdp + 15) >= 2;
    let root = if wide { read::<u64>(rsdp + 24) } else { u64::from(read::<u32>(rsdp + 16)) };
    let (root, size) = (address(root), if wide { 8 } else { 4 });
    (36..length(root)).step_by(size).map(move |offset| match wide {
        true => address(read::<u64>(root + offset)),
        false => address(u64::from(read::<u32>(root + offset))),
    })
}

/// `_S5_`, PackageOp, PkgLength, NumElements, then the first element: BytePrefix and a byte, or
/// the constants zero or one.
fn sleep_type(dsdt: usize) -> Option<u16> {
    let at = (dsdt..dsdt + length(dsdt)).find(|at| signature(*at) == *b"_S5_")?;
    let element = at + 7;
    Some(match read::<u8>(element) {
        0x0a => u16::from(read::<u8>(element + 1)),
        other => u16::from(other & 1),
    })
}

fn length(table: usize) -> usize {
    usize::try_from(read::<u32>(table + 4)).unwrap_or(0)
}

fn signature(table: usize) -> [u8; 4] {
    read(table)
}

fn read<T: Copy>(at: usize) -> T {
    // SAFETY: the firmware's tables are in memory that is mapped one to one; every bit pattern of
    // the integers and arrays read here is valid.
    unsafe { core::ptr::with_exposed_provenance::<T>(at).read_unaligned() }
}
