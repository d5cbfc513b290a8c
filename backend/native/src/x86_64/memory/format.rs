//! The bits of second-level table entries. NPT has those of the processor's own page tables
//! (AMD APM vol. 2 §15.25.5 and §5.3); EPT's differ and will be a second [`Format`].

use hypervisor::memory::Perms;

/// How one kind of second-level tables spells its entries.
pub(crate) trait Format: Send + Sync + 'static {
    /// An entry that maps memory; `large` if not at the last level.
    fn leaf(at: u64, perms: Perms, large: bool) -> u64;

    /// An entry that leads to another table.
    fn table(at: u64) -> u64;

    /// Whether there is anything.
    fn is_present(entry: u64) -> bool;

    /// Whether an entry above the last level maps memory.
    fn is_large(entry: u64) -> bool;

    /// Where it leads.
    fn address(entry: u64) -> u64 {
        entry & 0x000f_ffff_ffff_f000
    }
}

/// Nested page tables of AMD's SVM.
pub(crate) struct Npt;

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
/// Every access of a guest is a user's (§15.25.5).
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;

impl Format for Npt {
    fn leaf(at: u64, perms: Perms, large: bool) -> u64 {
        if !perms.intersects(Perms::READ | Perms::EXEC) {
            return 0;
        }
        // Accessed and dirty are nobody's business here: set, the processor need not.
        let mut entry = at | PRESENT | USER | ACCESSED | DIRTY;
        if perms.contains(Perms::WRITE) {
            entry |= WRITE;
        }
        if !perms.contains(Perms::EXEC) {
            entry |= NO_EXECUTE;
        }
        if large { entry | LARGE } else { entry }
    }

    fn table(at: u64) -> u64 {
        at | PRESENT | WRITE | USER | ACCESSED
    }

    fn is_present(entry: u64) -> bool {
        entry & PRESENT != 0
    }

    fn is_large(entry: u64) -> bool {
        entry & LARGE != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_the_manuals_bits() {
        let all = Perms::all();
        assert_eq!(Npt::leaf(0x20_0000, all, true), 0x20_00e7);
        assert_eq!(Npt::leaf(0x1000, all, false), 0x1067);
        assert_eq!(Npt::leaf(0x1000, Perms::READ, false), 0x1065 | 1 << 63);
        assert_eq!(Npt::leaf(0x1000, Perms::EXEC | Perms::READ, false), 0x1065);
        assert_eq!(Npt::leaf(0x1000, Perms::WRITE, false), 0, "cannot be said");
        assert_eq!(Npt::address(Npt::leaf(0x1234_5000, all, false)), 0x1234_5000);
    }
}
