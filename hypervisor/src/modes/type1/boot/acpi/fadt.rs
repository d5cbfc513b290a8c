//! FADT (ACPI 6.5 §5.2.9): the fixed hardware.

use super::{OEM, OEM_REVISION, OEM_TABLE};
use crate::modes::type1::layout::{
    PM_TIMER, PM1_CONTROL, PM1_EVENT, RESET_PORT, RESET_VALUE, RTC_CENTURY, RTC_DAY_ALARM, SCI_LINE,
};
use acpi_tables::fadt::{FADT, FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};

/// Where FIRMWARE_CTRL, DSDT and X_DSDT are, and how wide. X_FIRMWARE_CTRL stays 0: a FACS has
/// one pointer only.
pub const POINTERS: [(usize, u8); 3] = [(36, 4), (40, 4), (140, 8)];

/// IA-PC boot architecture: there are devices behind LPC; no VGA. That the bit of the 8042 is
/// clear says that there is none, and that of the CMOS RTC that there is one. Nothing is said of
/// PCIe's ASPM, as there is no PCIe link: Linux would tell that it has disabled it.
const BOOT_ARCHITECTURE: u16 = 1 << 0 | 1 << 2;
/// C2 and C3 do not exist: latencies above the highest that count.
const NO_C2: u16 = 0xfff;
const NO_C3: u16 = 0xfff;

/// The table, with offsets where its pointers go.
pub fn build(facs: u64, dsdt: u64) -> FADT {
    let mut table = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .preferred_pm_profile(PmProfile::Unspecified)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        // Set means: not among the fixed hardware.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        // The power management timer is 32 bits wide (`devices/pm.rs`).
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup);
    table.firmware_ctrl = low(facs).into();
    table.dsdt = low(dsdt).into();
    table.x_dsdt = dsdt.into();
    table.sci_int = line(SCI_LINE).into();
    // SMI_CMD stays 0: the machine is always in ACPI mode.
    table.p_lvl2_lat = NO_C2.into();
    table.p_lvl3_lat = NO_C3.into();
    (table.day_alrm, table.century) = (RTC_DAY_ALARM, RTC_CENTURY);
    table.iapc_boot_arch = BOOT_ARCHITECTURE.into();
    (table.pm1_evt_len, table.pm1_cnt_len, table.pm_tmr_len) = (4, 2, 4);
    table.pm1a_evt_blk = u32::from(PM1_EVENT).into();
    table.pm1a_cnt_blk = u32::from(PM1_CONTROL).into();
    table.pm_tmr_blk = u32::from(PM_TIMER).into();
    table.x_pm1a_evt_blk = port(PM1_EVENT, 32, AccessSize::WordAccess);
    table.x_pm1a_cnt_blk = port(PM1_CONTROL, 16, AccessSize::WordAccess);
    table.x_pm_tmr_blk = port(PM_TIMER, 32, AccessSize::DwordAccess);
    table.reset_reg = port(RESET_PORT, 8, AccessSize::ByteAccess);
    table.reset_value = RESET_VALUE;
    table.finalize()
}

/// A line of the I/O APIC, of which there are few.
fn line(line: u32) -> u16 {
    u16::try_from(line).unwrap_or(0)
}

fn port(port: u16, bits: u8, size: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, bits, 0, size, port.into())
}

/// An offset in the tables, which are far smaller than 4 GiB.
fn low(offset: u64) -> u32 {
    u32::try_from(offset).unwrap_or(0)
}
