//! A guest's virtual memory, as its own page tables and segments have it, for instructions that
//! the backend finishes: AMD APM vol. 2, chapters 4 (segmentation) and 5 (paging).
//!
//! Every walk is five entries long at most. Entries are read once each.

#![allow(unsafe_code)]

use super::decode::{Mode, Seg};
use super::memory::Access;
use super::vendor::{Injection, Vendor};
use crate::Platform;
use core::sync::atomic::Ordering;
use hypervisor::memory::{Gpa, GuestMemory};

pub(crate) const CR0_PE: u64 = 1 << 0;
const CR0_WP: u64 = 1 << 16;
pub(crate) const CR0_PG: u64 = 1 << 31;
const CR4_PSE: u64 = 1 << 4;
pub(crate) const CR4_PAE: u64 = 1 << 5;
const CR4_LA57: u64 = 1 << 12;
const CR4_SMEP: u64 = 1 << 20;
const CR4_SMAP: u64 = 1 << 21;
pub(crate) const EFER_LME: u64 = 1 << 8;
pub(crate) const EFER_LMA: u64 = 1 << 10;
const EFER_NXE: u64 = 1 << 11;
const RFLAGS_VM: u64 = 1 << 17;
const RFLAGS_AC: u64 = 1 << 18;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Error code of a page fault.
const CODE_PRESENT: u32 = 1;
const CODE_WRITE: u32 = 2;
const CODE_USER: u32 = 4;
const CODE_RESERVED: u32 = 8;
const CODE_FETCH: u32 = 16;

/// Why an address has no guest-physical one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Miss {
    /// An exception, and the value of CR2 where it is a page fault.
    Fault(Injection, Option<u64>),
    /// A page table is not in RAM.
    NoTable(Gpa),
}

impl Miss {
    /// A general protection fault.
    pub const GP: Self = Self::Fault(Injection::GP, None);
}

/// The registers that decide.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Paging {
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    pub rflags: u64,
    pub cpl: u8,
}

/// An entry of page tables, as a walk has read it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    /// Where the host has it: 8 bytes of RAM.
    pub at: *const u8,
    pub value: u64,
}

/// How an address was found by four levels of tables.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    /// From the root; where a large page ends it early the last entry is repeated.
    pub steps: [Step; 4],
    /// The guest-physical address.
    pub gpa: u64,
}

/// A kind of page tables.
struct Shape {
    levels: u32,
    /// Bits of an index.
    bits: u32,
    /// Bytes of an entry.
    entry: u64,
}

impl Paging {
    /// A vCPU's, now.
    pub fn of<P: Platform, V: Vendor<P>>(v: &V) -> Self {
        Self {
            cr0: v.cr0(),
            cr3: v.cr3(),
            cr4: v.cr4(),
            efer: v.efer(),
            rflags: v.rflags(),
            cpl: v.cpl(),
        }
    }

    fn shape(&self) -> Shape {
        let (levels, bits, entry) = if self.efer & EFER_LMA != 0 {
            (if self.cr4 & CR4_LA57 != 0 { 5 } else { 4 }, 9, 8)
        } else if self.cr4 & CR4_PAE != 0 {
            (3, 9, 8)
        } else {
            (2, 10, 4)
        };
        Shape { levels, bits, entry }
    }

    /// The guest-physical address of a linear one, for an access.
    ///
    /// # Errors
    /// See [`Miss`].
    pub fn translate(&self, memory: &GuestMemory, at: u64, access: Access) -> Result<u64, Miss> {
        if self.cr0 & CR0_PG == 0 {
            return Ok(at & 0xffff_ffff);
        }
        if let Some(found) = self.usual(memory, at, access, |_, _| ()) {
            return Ok(found);
        }
        let shape = self.shape();
        let base = if shape.levels == 3 { !0x1f & 0xffff_ffff } else { ADDRESS };
        let mut table = self.cr3 & base;
        let (mut user, mut writable, mut executable) = (true, true, true);
        for level in (0..shape.levels).rev() {
            let shift = 12 + shape.bits * level;
            let index = at >> shift & ((1 << shape.bits) - 1);
            let place = Gpa(table + index * shape.entry);
            let entry = read_entry(memory, place, shape.entry)?;
            if entry & PRESENT == 0 {
                return Err(self.fault(at, access, 0));
            }
            // The entries of a PAE root have other bits.
            if shape.levels != 3 || level != 2 {
                user &= entry & USER != 0;
                writable &= entry & WRITABLE != 0;
                executable &= entry & NO_EXECUTE == 0 || self.efer & EFER_NXE == 0;
            }
            let large = level > 0
                && entry & LARGE != 0
                && (shape.entry == 8 || self.cr4 & CR4_PSE != 0)
                && (shape.levels != 3 || level != 2);
            if large && level > 2 {
                return Err(self.fault(at, access, CODE_PRESENT | CODE_RESERVED));
            }
            if level == 0 || large {
                self.check(at, access, user, writable, executable)?;
                mark(memory, place, entry, access);
                return Ok(leaf(entry, shift, shape.entry, large) | at & ((1 << shift) - 1));
            }
            if shape.levels != 3 || level != 2 {
                mark(memory, place, entry | DIRTY, access);
            }
            table = entry & ADDRESS;
        }
        // Not reached: level 0 has returned.
        Err(self.fault(at, access, 0))
    }

    /// How code is found in the usual case; `None` in any other, which [`Self::translate`] knows.
    pub fn way_to_code(&self, memory: &GuestMemory, at: u64) -> Option<Way> {
        if self.cr0 & CR0_PG == 0 {
            return None;
        }
        let mut steps = [Step { at: core::ptr::null(), value: 0 }; 4];
        let mut level = 0;
        let gpa = self.usual(memory, at, Access::Execute, |at, value| {
            // What is beyond the last one repeats it.
            steps.iter_mut().skip(level).for_each(|step| *step = Step { at, value });
            level += 1;
        })?;
        Some(Way { steps, gpa })
    }

    /// The usual case, quickly: four levels, everything there, marked and allowed without looking
    /// closer. `None` where that is not so. `seen` is told each entry and where the host has it.
    ///
    /// For code the answer follows from the entries, CR3, and whether CPL is 3.
    #[inline]
    fn usual(
        &self,
        memory: &GuestMemory,
        at: u64,
        access: Access,
        mut seen: impl FnMut(*const u8, u64),
    ) -> Option<u64> {
        if self.efer & EFER_LMA == 0 || self.cr4 & CR4_LA57 != 0 {
            return None;
        }
        let (mut all, mut any) = (u64::MAX, 0);
        let (mut table, mut shift) = (self.cr3 & ADDRESS, 39);
        loop {
            let place = host(memory, table + (at >> shift & 511) * 8, 8)?;
            // SAFETY: 8 bytes of RAM, which are read once.
            let entry = unsafe { read_u64(place) };
            seen(place, entry);
            if entry & (PRESENT | ACCESSED) != PRESENT | ACCESSED {
                return None;
            }
            all &= entry;
            any |= entry;
            if shift == 12 || entry & LARGE != 0 {
                let inside = (1 << shift) - 1;
                let allowed = match access {
                    Access::Read => true,
                    Access::Write => all & WRITABLE != 0 && entry & DIRTY != 0,
                    Access::Execute => any & NO_EXECUTE == 0,
                };
                let own = (all & USER != 0) == (self.cpl == 3);
                let found = entry & ADDRESS & !inside | at & inside;
                return (allowed && own && shift < 39).then_some(found);
            }
            table = entry & ADDRESS;
            shift -= 9;
        }
    }

    fn check(
        &self,
        at: u64,
        access: Access,
        user: bool,
        writable: bool,
        executable: bool,
    ) -> Result<(), Miss> {
        let from_user = self.cpl == 3;
        let kept = match access {
            Access::Execute => !executable || !from_user && user && self.cr4 & CR4_SMEP != 0,
            Access::Read | Access::Write => {
                let write = access == Access::Write;
                let smap = self.cr4 & CR4_SMAP != 0 && self.rflags & RFLAGS_AC == 0;
                write && !writable && (from_user || self.cr0 & CR0_WP != 0)
                    || !from_user && user && smap
            }
        };
        if kept || from_user && !user {
            return Err(self.fault(at, access, CODE_PRESENT));
        }
        Ok(())
    }

    fn fault(&self, at: u64, access: Access, mut code: u32) -> Miss {
        if self.cpl == 3 {
            code |= CODE_USER;
        }
        match access {
            Access::Write => code |= CODE_WRITE,
            Access::Execute if self.efer & EFER_NXE != 0 || self.cr4 & CR4_SMEP != 0 => {
                code |= CODE_FETCH;
            }
            Access::Read | Access::Execute => {}
        }
        Miss::Fault(Injection::with_code(14, code), Some(at))
    }
}

/// What a leaf maps: 4 KiB, or a large page; those of 4 MiB have upper address bits below.
fn leaf(entry: u64, shift: u32, size: u64, large: bool) -> u64 {
    let address = entry & ADDRESS & !((1 << shift) - 1);
    if size == 4 && large { address | (entry >> 13 & 0xff) << 32 } else { address }
}

/// A value wherever the host has it.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Unaligned<T>(T);

/// Where the host has `size` bytes of RAM. The guest's processor does not ask what the host may
/// do with them.
#[inline(always)]
pub(crate) fn host(memory: &GuestMemory, gpa: u64, size: u64) -> Option<*const u8> {
    memory.blocks().iter().find_map(|block| {
        let range = block.range();
        let offset = gpa.wrapping_sub(range.start);
        let len = range.end - range.start;
        let inside = offset < len && len - offset >= size;
        let offset = usize::try_from(offset).ok()?;
        inside.then(|| block.host().wrapping_add(offset).cast_const())
    })
}

/// Reads 8 bytes of RAM, once.
///
/// # Safety
/// They are mapped for the host.
#[inline(always)]
pub(crate) unsafe fn read_u64(at: *const u8) -> u64 {
    // SAFETY: as the caller promises; the guest may change them meanwhile.
    unsafe { at.cast::<Unaligned<u64>>().read_volatile().0 }
}

/// The same for 4 bytes.
///
/// # Safety
/// As for [`read_u64`].
#[inline(always)]
pub(crate) unsafe fn read_u32(at: *const u8) -> u32 {
    // SAFETY: as above.
    unsafe { at.cast::<Unaligned<u32>>().read_volatile().0 }
}

fn read_entry(memory: &GuestMemory, at: Gpa, size: u64) -> Result<u64, Miss> {
    let host = host(memory, at.0, size).ok_or(Miss::NoTable(at))?;
    // SAFETY: as many bytes of RAM, as checked.
    Ok(unsafe { if size == 8 { read_u64(host) } else { read_u32(host).into() } })
}

/// Sets the accessed bit, and in a leaf that is written the dirty bit.
fn mark(memory: &GuestMemory, place: Gpa, entry: u64, access: Access) {
    let mut bits = ACCESSED;
    if access == Access::Write {
        bits |= DIRTY;
    }
    // The bits are in the lower half. A table that cannot be written stays as it is.
    if entry & bits != bits {
        let table = bits & !(entry & DIRTY);
        let _ = memory.fetch_or_u32(place, u32::try_from(table).unwrap_or(0), Ordering::Relaxed);
    }
}

/// Whether code is of 64-bit mode.
#[inline(always)]
pub(crate) fn is_64_bit<P: Platform, V: Vendor<P>>(v: &V) -> bool {
    const LONG: u16 = 1 << 9;
    v.segment(Seg::Cs).attributes & LONG != 0 && v.efer() & EFER_LMA != 0
}

/// How wide code is.
pub(crate) fn mode<P: Platform, V: Vendor<P>>(v: &V) -> Mode {
    const DEFAULT_32: u16 = 1 << 10;
    let attributes = v.segment(Seg::Cs).attributes;
    if is_64_bit(v) {
        Mode::Bits64
    } else if v.cr0() & CR0_PE != 0 && attributes & DEFAULT_32 != 0 && v.rflags() & RFLAGS_VM == 0 {
        Mode::Bits32
    } else {
        Mode::Bits16
    }
}

/// The linear address of `size` bytes at an offset in a segment.
///
/// # Errors
/// Beyond the segment's limit; not canonical.
pub(crate) fn linear<P: Platform, V: Vendor<P>>(
    v: &V,
    mode: Mode,
    segment: Seg,
    offset: u64,
    size: u8,
) -> Result<u64, Miss> {
    const EXPAND_DOWN: u16 = 1 << 2;
    const CODE: u16 = 1 << 3;
    let stack = segment == Seg::Ss;
    let refused = if stack { Miss::Fault(Injection::with_code(12, 0), None) } else { Miss::GP };
    if mode == Mode::Bits64 {
        let base = if matches!(segment, Seg::Fs | Seg::Gs) { v.segment(segment).base } else { 0 };
        let at = base.wrapping_add(offset);
        let unused = if v.cr4() & CR4_LA57 != 0 { 7 } else { 16 };
        let canonical = (at.cast_signed() << unused >> unused).cast_unsigned() == at;
        return if canonical { Ok(at) } else { Err(refused) };
    }
    let found = v.segment(segment);
    let down = found.attributes & (CODE | EXPAND_DOWN) == EXPAND_DOWN;
    if !down && offset.saturating_add(u64::from(size) - 1) > u64::from(found.limit) {
        return Err(refused);
    }
    Ok(found.base.wrapping_add(offset) & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::board;
    use crate::{GuestRam, Platform};

    const LONG: Paging = Paging {
        cr0: CR0_PE | CR0_PG | CR0_WP,
        cr3: 0x1000,
        cr4: CR4_PAE,
        efer: EFER_LME | EFER_LMA | EFER_NXE,
        rflags: 2,
        cpl: 0,
    };

    fn code(miss: Miss) -> Option<u32> {
        match miss {
            Miss::Fault(injection, _) => injection.error_code,
            Miss::NoTable(_) => None,
        }
    }

    fn ram() -> <crate::testing::Board as Platform>::Ram {
        let ranges = core::iter::once(0..0x10_0000).collect::<alloc::vec::Vec<_>>();
        board().guest_ram(&ranges, 0).unwrap()
    }

    #[test]
    fn long_mode_maps_and_checks() {
        let ram = ram();
        let m = ram.memory();
        for (at, value) in [
            (0x1000, 0x2007u64),
            (0x2000, 0x3007),
            (0x3000, 0x4007),
            (0x3008, 0x60_0087),
            (0x4000, 0x7003),
            (0x4008, 0x8001),
            (0x4010, 0x9007 | NO_EXECUTE),
        ] {
            m.write_obj(Gpa(at), &value).unwrap();
        }
        let go = |p: &Paging, at, access| p.translate(m, at, access);
        assert_eq!(go(&LONG, 0x123, Access::Write), Ok(0x7123));
        assert_eq!(m.read_obj(Gpa(0x4000)), Ok(0x7003 | ACCESSED | DIRTY));
        assert_eq!(m.read_obj(Gpa(0x3000)), Ok(0x4007 | ACCESSED));
        assert_eq!(go(&LONG, 0x20_0456, Access::Read), Ok(0x60_0456));
        assert_eq!(go(&LONG, 0x1000, Access::Write).map_err(code), Err(Some(3)));
        let relaxed = Paging { cr0: CR0_PE | CR0_PG, ..LONG };
        assert_eq!(go(&relaxed, 0x1000, Access::Write), Ok(0x8000));
        assert_eq!(go(&LONG, 0x2000, Access::Execute).map_err(code), Err(Some(0x11)));
        assert_eq!(go(&LONG, 0x3000, Access::Read).map_err(code), Err(Some(0)));
        let user = Paging { cpl: 3, ..LONG };
        assert_eq!(go(&user, 0x0, Access::Read).map_err(code), Err(Some(5)));
        assert_eq!(go(&user, 0x2000, Access::Read), Ok(0x9000));
        let smap = Paging { cr4: CR4_PAE | CR4_SMAP | CR4_SMEP, ..LONG };
        assert_eq!(go(&smap, 0x2000, Access::Read).map_err(code), Err(Some(1)));
        assert_eq!(go(&Paging { rflags: RFLAGS_AC, ..smap }, 0x2000, Access::Read), Ok(0x9000));
        let far = Paging { cr3: 0x7000_0000, ..LONG };
        assert_eq!(go(&far, 0, Access::Read), Err(Miss::NoTable(Gpa(0x7000_0000))));
    }

    #[test]
    fn older_kinds_of_paging() {
        let ram = ram();
        let m = ram.memory();
        m.write_obj(Gpa(0x1000), &0x2007u32).unwrap();
        m.write_obj(Gpa(0x1004), &(0x0040_0087u32 | 1 << 13)).unwrap();
        m.write_obj(Gpa(0x2004), &0x5007u32).unwrap();
        let old = Paging { cr0: CR0_PE | CR0_PG, cr3: 0x1000, ..Paging::default() };
        assert_eq!(old.translate(m, 0x1234, Access::Read), Ok(0x5234));
        let pse = Paging { cr4: CR4_PSE, ..old };
        assert_eq!(pse.translate(m, 0x41_2345, Access::Read), Ok(0x1_0041_2345));
        m.write_obj(Gpa(0x6020), &0x7001u64).unwrap();
        m.write_obj(Gpa(0x7008), &0x20_00e7u64).unwrap();
        let pae = Paging { cr3: 0x6020, cr4: CR4_PAE, ..old };
        assert_eq!(pae.translate(m, 0x21_0042, Access::Write), Ok(0x21_0042));
        assert_eq!(m.read_obj(Gpa(0x6020)), Ok(0x7001u64), "a PAE root has no such bits");
        let off = Paging::default();
        assert_eq!(off.translate(m, 0x1_2345_6789, Access::Write), Ok(0x2345_6789));
    }

    proptest::proptest! {
        #[test]
        fn no_tables_make_it_panic(
            entries in proptest::collection::vec((0u64..0x10_0000 / 8, proptest::num::u64::ANY), 0..64),
            cr3: u64, cr4: u64, efer: u64, at: u64,
        ) {
            let ram = ram();
            for (index, value) in entries {
                ram.memory().write_obj(Gpa(index * 8), &(value & 0xf_ffff | 7)).unwrap();
            }
            let p = Paging { cr0: CR0_PE | CR0_PG, cr3: cr3 & 0xf_ffff, cr4, efer, rflags: 2, cpl: 3 };
            let _ = p.translate(ram.memory(), at, Access::Write);
        }
    }
}
