//! The MADT: CPUs and interrupt controllers (ACPI 6.5 §5.2.12).

use super::number;
use arrayvec::ArrayVec;

/// CPUs that are taken note of.
pub const MAX_CPUS: usize = 256;

/// An I/O APIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoApic {
    /// Physical address.
    pub address: u64,
    /// The number of its first input.
    pub first: u32,
}

/// Where an ISA interrupt goes, if not to the I/O APIC input of its number, edge-triggered and
/// active high.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IsaOverride {
    /// ISA interrupt.
    pub isa: u8,
    /// I/O APIC input.
    pub input: u32,
    /// Active low.
    pub low: bool,
    /// Level-triggered.
    pub level: bool,
}

/// What the table says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Madt {
    /// Physical address of the local APICs.
    pub local: u64,
    /// APIC IDs of the CPUs that can be started, in the table's order.
    pub cpus: ArrayVec<u32, MAX_CPUS>,
    /// I/O APICs.
    pub io: ArrayVec<IoApic, 8>,
    /// Overrides.
    pub overrides: ArrayVec<IsaOverride, 16>,
}

impl Madt {
    /// Where an ISA interrupt goes.
    pub fn isa(&self, isa: u8) -> IsaOverride {
        let plain = IsaOverride { isa, input: u32::from(isa), low: false, level: false };
        self.overrides.iter().copied().find(|o| o.isa == isa).unwrap_or(plain)
    }
}

/// Reads the table; entries that are too short are passed over.
pub(super) fn parse(table: &[u8]) -> Madt {
    let mut madt = Madt {
        local: number::<4>(table, 36).unwrap_or(0xfee0_0000),
        cpus: ArrayVec::new(),
        io: ArrayVec::new(),
        overrides: ArrayVec::new(),
    };
    let mut rest = table.get(44..).unwrap_or(&[]);
    while let [_, length, ..] = rest {
        let length = usize::from(*length);
        let Some((entry, after)) = rest.split_at_checked(length).filter(|_| length >= 2) else {
            break;
        };
        let _ = madt.take(entry);
        rest = after;
    }
    madt
}

impl Madt {
    fn take(&mut self, entry: &[u8]) -> Option<()> {
        let word = |at| number::<4>(entry, at).and_then(|word| u32::try_from(word).ok());
        match entry.first()? {
            // Local APIC: processor UID, APIC ID, flags.
            0 => self.cpu(u32::from(*entry.get(3)?), word(4)?),
            // I/O APIC.
            1 => self.io.try_push(IoApic { address: number::<4>(entry, 4)?, first: word(8)? }).ok(),
            // Interrupt source override.
            2 => {
                let flags = number::<2>(entry, 8)?;
                let (low, level) = (flags & 3 == 3, flags >> 2 & 3 == 3);
                let isa = *entry.get(3)?;
                self.overrides.try_push(IsaOverride { isa, input: word(4)?, low, level }).ok()
            }
            // Address of the local APICs, 64 bits.
            5 => {
                self.local = number::<8>(entry, 4)?;
                Some(())
            }
            // Local x2APIC.
            9 => self.cpu(word(4)?, word(8)?),
            _ => Some(()),
        }
    }

    fn cpu(&mut self, id: u32, flags: u32) -> Option<()> {
        if flags & 1 == 0 || self.cpus.contains(&id) {
            return None;
        }
        self.cpus.try_push(id).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::table;
    use super::*;

    #[test]
    fn cpus_controllers_and_overrides_are_found() {
        let mut body = [&0xfee0_0000u32.to_le_bytes()[..], &[0; 4]].concat();
        body.extend([0, 8, 0, 0, 1, 0, 0, 0]);
        body.extend([0, 8, 1, 5, 1, 0, 0, 0]);
        // Not enabled.
        body.extend([0, 8, 2, 6, 0, 0, 0, 0]);
        body.extend([9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0]);
        // The same CPU again, in the newer form.
        body.extend([9, 16, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0]);
        body.extend([1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
        body.extend([2, 10, 0, 0, 2, 0, 0, 0, 0, 0]);
        body.extend([2, 10, 0, 9, 9, 0, 0, 0, 0xf, 0]);
        body.extend([0x7f, 4, 0, 0]);
        let madt = parse(&table(b"APIC", &body));
        assert_eq!(madt.cpus[..], [0, 5, 256]);
        assert_eq!(madt.io[..], [IoApic { address: 0xfec0_0000, first: 0 }]);
        assert_eq!(madt.isa(0).input, 2);
        assert_eq!(madt.isa(9), IsaOverride { isa: 9, input: 9, low: true, level: true });
        assert_eq!(madt.isa(4), IsaOverride { isa: 4, input: 4, low: false, level: false });
    }

    #[test]
    fn an_entry_that_lies_about_its_length_ends_the_list() {
        for lie in [[0, 0], [0, 1], [0, 200]] {
            let mut body = [0; 10];
            body[8..].copy_from_slice(&lie);
            assert!(parse(&table(b"APIC", &body)).cpus.is_empty());
        }
        assert!(parse(&[]).cpus.is_empty());
    }
}
