//! Decodes the instructions that a guest may use on device memory and ports, and those that leave
//! a guest by themselves. AMD APM vol. 3, appendix A (opcode maps) and §1.2 to §1.4 (prefixes,
//! ModRM, SIB).
//!
//! What is not in [`Op`] is not decoded: vector instructions, far transfers, stack operations.

mod cursor;
mod insn;
mod opcode;
#[cfg(test)]
mod tests;

pub(crate) use insn::*;

/// Longest instruction in bytes.
pub(crate) const MAX_LEN: usize = 15;

/// Why bytes were not decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The bytes end before the instruction does.
    Short,
    /// Not one of these instructions.
    Unknown,
}

/// Decodes the instruction that `bytes` begin with.
pub(crate) fn decode(mode: Mode, bytes: &[u8]) -> Result<Insn, Failure> {
    let mut cursor = cursor::Cursor::new(mode, bytes)?;
    opcode::decode(&mut cursor)
}
