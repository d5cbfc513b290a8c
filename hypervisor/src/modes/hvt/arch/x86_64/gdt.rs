//! The global descriptor table: null, code, data (Intel SDM vol. 3 §3.4.5).

use super::GDT;
use crate::memory::{Gpa, GuestMemory, MemoryError};
use crate::vcpu::Segment;

/// 64-bit code: execute-only, accessed, present, 4 GiB.
pub const CODE: Segment = Segment { selector: 8, base: 0, limit: 0xffff_ffff, attributes: 0xa99 };
/// Flat data: writable, accessed, present, 32-bit, 4 GiB.
pub const DATA: Segment = Segment { selector: 16, base: 0, limit: 0xffff_ffff, attributes: 0xc93 };
/// A busy 64-bit task state segment, which a processor in 64-bit mode must have.
pub const TASK: Segment = Segment { selector: 0, base: 0, limit: 0, attributes: 0x8b };
/// Limit of the table: three descriptors.
pub const LIMIT: u16 = 3 * 8 - 1;

/// Writes the table.
pub fn write(memory: &GuestMemory) -> Result<(), MemoryError> {
    for segment in [CODE, DATA] {
        let at = Gpa(GDT.0 + u64::from(segment.selector));
        memory.write_obj(at, &segment.descriptor())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values that the manuals' figures give for these segments.
    #[test]
    fn descriptors_are_packed_as_the_manual_draws_them() {
        assert_eq!(CODE.descriptor(), 0x00af_9900_0000_ffff);
        assert_eq!(DATA.descriptor(), 0x00cf_9300_0000_ffff);
        let odd = Segment { selector: 0, base: 0x1234_5678, limit: 0xabcde, attributes: 0x4f2 };
        assert_eq!(odd.descriptor(), 0x124a_f234_5678_bcde);
    }
}
