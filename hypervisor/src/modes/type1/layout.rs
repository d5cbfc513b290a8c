//! The guest-physical address map of a Type 1 machine on x86_64, and its interrupt lines.
//!
//! RAM fills the addresses below 2.75 GiB and goes on at 4 GiB. Between the two are, upwards: a
//! place where SeaBIOS maps PCI's configuration space, the window of PCI devices, PCI's configuration space (ECAM), the interrupt controllers, firmware.
//! There is no hole for a VGA adapter or option ROMs: 640 KiB to 1 MiB is RAM, which the memory
//! map that the guest is given keeps reserved.

use alloc::vec::Vec;
use core::ops::Range;

/// Where RAM below 4 GiB ends at the latest: SeaBIOS maps ECAM there, as on QEMU's q35.
pub const LOW_RAM_END: u64 = 0xb000_0000;
/// Where RAM goes on.
pub const HIGH_RAM: u64 = 1 << 32;
/// Addresses for PCI devices' 32-bit BARs.
pub const PCI_WINDOW: Range<u64> = 0xc000_0000..0xe000_0000;
/// PCI's memory-mapped configuration space (PCI Express 5.0 §7.2.2).
pub const ECAM: Range<u64> = 0xe000_0000..0xe000_0000 + (PCI_BUSES << 20);
/// PCI buses that ECAM has room for.
pub const PCI_BUSES: u64 = 256;
/// Size of the window of PCI devices' 64-bit BARs, which begins at [`pci_window_64`].
pub const PCI_WINDOW_64_SIZE: u64 = 64 << 30;
/// The I/O APIC (Intel 82093AA §3.1).
pub const IO_APIC: Range<u64> = 0xfec0_0000..0xfec0_1000;
/// Local APICs after reset (Intel SDM vol. 3 §11.4.1).
pub const LOCAL_APIC: Range<u64> = 0xfee0_0000..0xfee0_1000;
/// Writes here are message-signalled interrupts (Intel SDM vol. 3 §11.11.1).
pub const MSI_WINDOW: Range<u64> = 0xfee0_0000..0xfef0_0000;
/// Four pages that a backend may use for itself: KVM on Intel needs them for real mode.
pub const BACKEND_PAGES: Range<u64> = 0xfeff_c000..0xff00_0000;
/// Firmware ends here, and is at most [`MAX_FIRMWARE`] bytes long.
pub const FIRMWARE_END: u64 = 1 << 32;
/// The largest firmware.
pub const MAX_FIRMWARE: u64 = 16 << 20;
/// Firmware's last 128 KiB, at most, are also here, as RAM.
pub const FIRMWARE_SHADOW: Range<u64> = 0xe_0000..0x10_0000;

/// The port of the first serial line (16550A), eight ports.
pub const COM1: u16 = 0x3f8;
/// PM1 event block: status and enable, 2 bytes each (ACPI 6.5 §4.8.3.1).
pub const PM1_EVENT: u16 = 0x600;
/// PM1 control block, 2 bytes (ACPI 6.5 §4.8.3.2).
pub const PM1_CONTROL: u16 = 0x604;
/// Power management timer, 4 bytes (ACPI 6.5 §4.8.3.3).
pub const PM_TIMER: u16 = 0x608;
/// SLP_TYP of the sleeping state S5 (soft off), for DSDT's `_S5`. SeaBIOS and OVMF know that it is
/// 0 without asking.
pub const SLP_TYP_S5: u8 = 0;
/// The reset register (FADT RESET_REG): write [`RESET_VALUE`].
pub const RESET_PORT: u16 = 0xcf9;
/// What resets the machine.
pub const RESET_VALUE: u8 = 0x06;
/// The CMOS index that holds the day of the month of alarms (FADT DAY_ALRM), or 0: none.
pub const RTC_DAY_ALARM: u8 = 0;
/// The CMOS index that holds the century (FADT CENTURY).
pub const RTC_CENTURY: u8 = 0x32;

/// The interval timer: line 0 of the 8259 pair, pin 2 of the I/O APIC (MADT override).
pub const TIMER_LINE: u32 = 0;
/// The keyboard controller.
pub const KEYBOARD_LINE: u32 = 1;
/// The first serial line.
pub const COM1_LINE: u32 = 4;
/// The real-time clock.
pub const RTC_LINE: u32 = 8;
/// ACPI's SCI: level-triggered, active high (MADT override).
pub const SCI_LINE: u32 = 9;
/// The lines of PCI's INTA# to INTD#, after the swizzle: level-triggered, active low.
pub const PCI_LINES: Range<u32> = 16..20;
/// Lines, and pins of the I/O APIC.
pub const LINES: u32 = 24;
/// APIC ID of the I/O APIC for the MADT.
pub const IO_APIC_ID: u8 = 0;

/// The ranges of RAM of a machine with this much memory, firmware not counted; ascending.
pub fn ram(memory: u64) -> Vec<Range<u64>> {
    let low = memory.min(LOW_RAM_END);
    let mut ranges = alloc::vec![0..low];
    if memory > low {
        ranges.push(HIGH_RAM..HIGH_RAM + (memory - low));
    }
    ranges
}

/// The addresses of firmware of this many bytes, a multiple of the page size; they are RAM that
/// the guest cannot write.
pub fn firmware(bytes: u64) -> Range<u64> {
    FIRMWARE_END - bytes.min(MAX_FIRMWARE)..FIRMWARE_END
}

/// The window of PCI devices' 64-bit BARs of a machine with this much memory: above RAM, aligned
/// to its size.
pub fn pci_window_64(memory: u64) -> Range<u64> {
    let end = ram(memory).last().map_or(HIGH_RAM, |range| range.end.max(HIGH_RAM));
    let start = end.next_multiple_of(PCI_WINDOW_64_SIZE);
    start..start + PCI_WINDOW_64_SIZE
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "a list of one range is meant")]
mod tests {
    use super::*;

    #[test]
    fn ram_goes_around_the_devices() {
        assert_eq!(ram(1 << 20), alloc::vec![0..1 << 20; 1]);
        assert_eq!(ram(LOW_RAM_END), alloc::vec![0..LOW_RAM_END; 1]);
        assert_eq!(ram(LOW_RAM_END + 4096), [0..LOW_RAM_END, HIGH_RAM..HIGH_RAM + 4096]);
        let all: u64 = ram(1 << 44).iter().map(|range| range.end - range.start).sum();
        assert_eq!(all, 1 << 44);
    }

    #[test]
    fn nothing_overlaps() {
        let firmware = firmware(u64::MAX);
        let map = [PCI_WINDOW, ECAM, IO_APIC, MSI_WINDOW, BACKEND_PAGES, firmware];
        assert!(map.windows(2).all(|pair| pair[0].end <= pair[1].start));
        assert_eq!(pci_window_64(1 << 20), 64 << 30..128 << 30);
        assert_eq!(pci_window_64(64 << 30).start, 128 << 30);
    }
}
