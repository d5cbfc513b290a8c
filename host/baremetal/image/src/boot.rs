//! The first steps: `boot.s`, and reading what the boot loader says.

use crate::memory::{BOOT_MAPPED, window};
use core::arch::global_asm;
use host_baremetal::acpi::{self, Acpi};
use host_baremetal::boot::{BootError, BootInfo, Physical, multiboot2, pvh};

global_asm!(include_str!("boot.s"), options(att_syntax));

/// Physical memory through the tables of `boot.s`.
struct BootWindow;

impl Physical for BootWindow {
    fn read(&self, at: u64, to: &mut [u8]) -> bool {
        let end = at.checked_add(to.len() as u64);
        if end.is_none_or(|end| end > BOOT_MAPPED) {
            return false;
        }
        // SAFETY: mapped, as checked; the loader's structures do not change.
        unsafe { window(at).copy_to_nonoverlapping(to.as_mut_ptr(), to.len()) };
        true
    }
}

/// Reads what the loader left at `info`.
pub fn read(multiboot: u32, info: u32) -> Result<BootInfo, BootError> {
    match multiboot {
        multiboot2::MAGIC => multiboot2::parse(&BootWindow, info),
        _ => pvh::parse(&BootWindow, u64::from(info)),
    }
}

/// Reads ACPI's tables.
pub fn acpi(boot: &BootInfo) -> Acpi {
    acpi::read(&BootWindow, boot.rsdp)
}
