//! What differs between the processors that HVT guests are built for.
//!
//! [`GuestArch`] says what an executable must be; a module per architecture says what its vCPU
//! finds in memory and registers before the first instruction.

pub mod x86_64;

/// A processor architecture that Solo5 builds hvt unikernels for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestArch {
    /// AMD64, Intel 64.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

impl GuestArch {
    /// `e_machine` of its executables (ELF gABI, table of machines).
    pub const fn machine(self) -> u16 {
        match self {
            Self::X86_64 => 62,
            Self::Aarch64 => 183,
        }
    }

    /// Its name, as compilers spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// Size in bytes of the pages whose permissions an executable's segments set.
    pub const fn page_size(self) -> u64 {
        0x1000
    }
}
