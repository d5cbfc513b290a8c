//! Model-specific registers: what each number that reaches the machine means to a guest.
//!
//! A backend keeps the architectural state (EFER, STAR, FS and GS base, SYSENTER, PAT, TSC, debug
//! control) and what belongs to the features that it offers; every other number comes here. What
//! the table does not know raises a general protection fault, as hardware does.

use super::apic::{Instant, LocalApic, Refused};

/// Memory type range registers (Intel SDM vol. 3 §12.11). They are kept and change nothing: a
/// guest's memory is write-back.
#[derive(Debug, Clone)]
struct Mtrrs {
    /// Pairs of base and mask.
    variable: [u64; 16],
    fixed: [u64; 11],
    default: u64,
}

const FIXED: [u32; 11] =
    [0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f];
/// Eight variable ranges, fixed ranges, write combining.
const MTRRCAP: u64 = 0x508;
/// Physical addresses may have 52 bits.
const PHYSICAL: u64 = (1 << 52) - 1;

fn is_memory_type(value: u64) -> bool {
    matches!(value & 0xff, 0 | 1 | 4 | 5 | 6)
}

impl Mtrrs {
    fn place(index: u32) -> Option<usize> {
        FIXED.iter().position(|fixed| *fixed == index)
    }

    fn get(&self, index: u32) -> Option<u64> {
        match index {
            0xfe => Some(MTRRCAP),
            0x2ff => Some(self.default),
            0x200..=0x20f => self.variable.get(usize::try_from(index - 0x200).ok()?).copied(),
            _ => Some(self.fixed[Self::place(index)?]),
        }
    }

    fn set(&mut self, index: u32, value: u64) -> Option<Result<(), Refused>> {
        let valid = match index {
            0xfe => false,
            0x2ff => value & !0xcff == 0 && is_memory_type(value),
            0x200..=0x20f if index & 1 == 0 => {
                value & !PHYSICAL & !0xfff == 0 && value & 0xf00 == 0 && is_memory_type(value)
            }
            0x200..=0x20f => value & !PHYSICAL == 0 && value & 0x7ff == 0,
            _ => {
                Self::place(index)?;
                value.to_le_bytes().into_iter().all(|byte| is_memory_type(byte.into()))
            }
        };
        if !valid {
            return Some(Err(Refused));
        }
        let slot = match index {
            0x2ff => &mut self.default,
            0x200..=0x20f => self.variable.get_mut(usize::try_from(index - 0x200).ok()?)?,
            _ => &mut self.fixed[Self::place(index)?],
        };
        *slot = value;
        Some(Ok(()))
    }
}

/// What a write to a row of the table does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Write {
    /// A general protection fault.
    Refuse,
    /// Nothing: the register exists, and what it would change does not.
    Ignore,
    /// Nothing, and only 0 may be written.
    Zero,
}

/// A register with a fixed value.
struct Row {
    index: u32,
    value: u64,
    write: Write,
}

const fn row(index: u32, value: u64, write: Write) -> Row {
    Row { index, value, write }
}

/// Registers with a fixed value.
const TABLE: [Row; 33] = [
    row(0x17, 0, Write::Refuse),                     // PLATFORM_ID
    row(0x2a, 0, Write::Ignore),                     // EBL_CR_POWERON
    row(0x34, 0, Write::Refuse),                     // SMI_COUNT
    row(0x3a, 1, Write::Refuse),                     // FEATURE_CONTROL: locked, nothing enabled
    row(0x79, 0, Write::Ignore),                     // BIOS_UPDT_TRIG: microcode is the host's
    row(0x8b, 0x0100_0065 | 1 << 32, Write::Ignore), // BIOS_SIGN_ID: a revision for both vendors
    row(0xe2, 0, Write::Ignore),                     // PKG_CST_CONFIG_CONTROL
    row(0x179, 0, Write::Refuse),                    // MCG_CAP: no banks
    row(0x17a, 0, Write::Zero),                      // MCG_STATUS
    row(0x198, 0, Write::Ignore),                    // PERF_STATUS
    row(0x199, 0, Write::Ignore),                    // PERF_CTL
    row(0x19a, 0, Write::Ignore),                    // CLOCK_MODULATION
    row(0x1db, 0, Write::Refuse),                    // LASTBRANCHFROMIP
    row(0x1dc, 0, Write::Refuse),                    // LASTBRANCHTOIP
    row(0x1dd, 0, Write::Refuse),                    // LASTINTFROMIP
    row(0x1de, 0, Write::Refuse),                    // LASTINTTOIP
    row(0xc001_0000, 0, Write::Ignore), // PERF_EVT_SEL0: counters that every AMD processor has; none counts
    row(0xc001_0001, 0, Write::Ignore), // PERF_EVT_SEL1
    row(0xc001_0002, 0, Write::Ignore), // PERF_EVT_SEL2
    row(0xc001_0003, 0, Write::Ignore), // PERF_EVT_SEL3
    row(0xc001_0004, 0, Write::Ignore), // PERF_CTR0
    row(0xc001_0005, 0, Write::Ignore), // PERF_CTR1
    row(0xc001_0006, 0, Write::Ignore), // PERF_CTR2
    row(0xc001_0007, 0, Write::Ignore), // PERF_CTR3
    row(0xc001_0010, 0, Write::Ignore), // SYSCFG
    row(0xc001_0015, 1 << 24, Write::Ignore), // HWCR: the TSC runs at P0's frequency
    row(0xc001_001f, 0, Write::Ignore), // NB_CFG
    row(0xc001_0055, 0, Write::Ignore), // INT_PENDING_MSG
    row(0xc001_0058, 0, Write::Zero),   // MMIO_CFG_BASE: ECAM is told by ACPI
    row(0xc001_0114, 0x18, Write::Ignore), // VM_CR: SVM is off, and locked
    row(0xc001_1022, 0, Write::Ignore), // DC_CFG
    row(0xc001_1029, 2, Write::Ignore), // DE_CFG: LFENCE serializes
    row(0xc001_102a, 0, Write::Ignore), // BU_CFG2
];

/// IA32_APIC_BASE.
pub const APIC_BASE: u32 = 0x1b;
const TSC_DEADLINE: u32 = 0x6e0;

/// IA32_MISC_ENABLE (Intel SDM vol. 4 table 2-2). What is written is kept and changes nothing.
const MISC_ENABLE: u32 = 0x1a0;
/// Fast strings; no branch trace, no precise event sampling.
const MISC_ENABLE_RESET: u64 = 1 | MISC_ENABLE_FIXED;
/// Bits 11 and 12, "not there", can only be read; so can bit 7, performance monitoring, which is 0.
const MISC_ENABLE_FIXED: u64 = 1 << 11 | 1 << 12;
/// Fast strings, thermal control, SpeedStep, MONITOR, CPUID's limit, xTPR messages, no XD.
const MISC_ENABLE_BITS: u64 = 1 | 1 << 3 | 1 << 16 | 1 << 18 | 1 << 22 | 1 << 23 | 1 << 34;

/// The registers of one vCPU that are kept here.
#[derive(Debug, Clone)]
pub struct Msrs {
    mtrrs: Mtrrs,
    misc_enable: u64,
}

impl Default for Msrs {
    fn default() -> Self {
        let mtrrs = Mtrrs { variable: [0; 16], fixed: [0; 11], default: 0 };
        Self { mtrrs, misc_enable: MISC_ENABLE_RESET }
    }
}

impl Msrs {
    /// Reads a register that needs no local APIC.
    ///
    /// # Errors
    /// If the guest is to get a general protection fault.
    pub fn read(&self, index: u32) -> Result<u64, Refused> {
        if index == MISC_ENABLE {
            return Ok(self.misc_enable);
        }
        let row = TABLE.iter().find(|row| row.index == index);
        row.map(|row| row.value).or_else(|| self.mtrrs.get(index)).ok_or(Refused)
    }

    /// Writes a register that needs no local APIC.
    ///
    /// # Errors
    /// As [`Msrs::read`].
    pub fn write(&mut self, index: u32, value: u64) -> Result<(), Refused> {
        if index == MISC_ENABLE {
            self.misc_enable = value & MISC_ENABLE_BITS | MISC_ENABLE_FIXED;
            return Ok(());
        }
        match TABLE.iter().find(|row| row.index == index).map(|row| row.write) {
            Some(Write::Ignore) => Ok(()),
            Some(Write::Zero) if value == 0 => Ok(()),
            Some(_) => Err(Refused),
            None => self.mtrrs.set(index, value).unwrap_or(Err(Refused)),
        }
    }
}

/// Reads a register of the local APIC; `None`: it is none of those.
pub fn read_apic(
    apic: &mut LocalApic,
    index: u32,
    now: &impl Instant,
) -> Option<Result<u64, Refused>> {
    match index {
        APIC_BASE => Some(Ok(apic.base())),
        TSC_DEADLINE => Some(Ok(apic.tsc_deadline())),
        _ => x2apic(index).map(|register| match register {
            Some(register) => apic.read_msr(register, now),
            None => Err(Refused),
        }),
    }
}

/// Writes one; gives the vector whose end the I/O APIC is to be told.
pub fn write_apic(
    apic: &mut LocalApic,
    index: u32,
    value: u64,
    now: &impl Instant,
) -> Option<Result<Option<u8>, Refused>> {
    match index {
        APIC_BASE => Some(apic.set_base(value).map(|()| None)),
        TSC_DEADLINE => {
            apic.set_tsc_deadline(value, now);
            Some(Ok(None))
        }
        _ => x2apic(index).map(|register| match register {
            Some(register) => apic.write_msr(register, value, now),
            None => Err(Refused),
        }),
    }
}

/// The register that an MSR of the x2APIC's range is; the inner `None` is one beyond the last.
fn x2apic(index: u32) -> Option<Option<u8>> {
    let register = index.checked_sub(0x800).filter(|register| *register < 0x100)?;
    Some(u8::try_from(register).ok().filter(|register| *register < 0x40))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_registers_are_refused() {
        let mut msrs = Msrs::default();
        for index in [0x174, 0x4000_0000, 0xc000_0080, 0xc001_0117, 0x210, 0x251] {
            assert_eq!(msrs.read(index), Err(Refused), "{index:#x}");
            assert_eq!(msrs.write(index, 0), Err(Refused), "{index:#x}");
        }
    }

    #[test]
    fn memory_types_are_kept_and_checked() {
        let mut msrs = Msrs::default();
        let good = [(0x200, 0xc000_0000), (0x201, 0xf_c000_0800), (0x2ff, 0xc06), (0x26f, 0x0606)];
        for (index, value) in good {
            assert_eq!(msrs.write(index, value), Ok(()), "{index:#x}");
            assert_eq!(msrs.read(index), Ok(value));
        }
        let bad =
            [(0x200, 2), (0x200, 1 << 52), (0x201, 0x400), (0x2ff, 0x1006), (0x250, 7), (0xfe, 0)];
        for (index, value) in bad {
            assert_eq!(msrs.write(index, value), Err(Refused), "{index:#x}");
        }
    }

    #[test]
    fn misc_enable_is_kept_but_for_what_only_can_be_read() {
        let mut msrs = Msrs::default();
        assert_eq!(msrs.read(0x1a0), Ok(0x1801));
        for (written, read) in
            [(0x4_00c5_0009, 0x4_00c5_1809), (0, 0x1800), (1 << 63 | 0x80, 0x1800)]
        {
            assert_eq!(msrs.write(0x1a0, written), Ok(()));
            assert_eq!(msrs.read(0x1a0), Ok(read));
        }
    }

    #[test]
    fn the_table_has_no_number_twice() {
        for (i, row) in TABLE.iter().enumerate() {
            assert!(TABLE[..i].iter().all(|other| other.index < row.index), "{:#x}", row.index);
        }
    }
}
