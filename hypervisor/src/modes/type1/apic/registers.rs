//! The registers of a local APIC (Intel SDM vol. 3 table 11-1 and table 11-6).

/// Registers by number: the offset in the page divided by 16, or the MSR's number from 0x800.
#[allow(missing_docs)]
pub mod number {
    pub const ID: u8 = 0x02;
    pub const VERSION: u8 = 0x03;
    pub const TPR: u8 = 0x08;
    pub const APR: u8 = 0x09;
    pub const PPR: u8 = 0x0a;
    pub const EOI: u8 = 0x0b;
    pub const LDR: u8 = 0x0d;
    pub const DFR: u8 = 0x0e;
    pub const SVR: u8 = 0x0f;
    pub const ISR: u8 = 0x10;
    pub const TMR: u8 = 0x18;
    pub const IRR: u8 = 0x20;
    pub const IRR_LAST: u8 = 0x27;
    pub const ESR: u8 = 0x28;
    pub const ICR: u8 = 0x30;
    pub const ICR_HIGH: u8 = 0x31;
    pub const LVT_TIMER: u8 = 0x32;
    pub const LVT_ERROR: u8 = 0x37;
    pub const INITIAL_COUNT: u8 = 0x38;
    pub const CURRENT_COUNT: u8 = 0x39;
    pub const DIVIDE: u8 = 0x3e;
    pub const SELF_IPI: u8 = 0x3f;
}

/// Version 0x14 (integrated), six entries in the local vector table (§11.4.8).
pub const VERSION: u32 = 0x0005_0014;
/// Local vector table: masked.
pub const MASKED: u32 = 1 << 16;
/// Spurious vector register: the APIC is enabled by software.
pub const SOFTWARE_ENABLE: u32 = 1 << 8;
/// Bits of the spurious vector register: vector, enable, focus checking.
pub const SVR_BITS: u32 = 0x3ff;
/// Bits of DCR.
pub const DIVIDE_BITS: u32 = 0b1011;
/// Bits of ICR's low half that can be written; bit 12, the delivery status, is always idle.
pub const ICR_BITS: u32 = 0x000c_cfff;

/// Error status (§11.5.3).
pub mod error {
    /// It was told to send a vector below 16.
    pub const SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
    /// It was sent one.
    pub const RECEIVED_ILLEGAL_VECTOR: u32 = 1 << 6;
    /// An access to a register that there is not.
    pub const ILLEGAL_REGISTER: u32 = 1 << 7;
}

/// The bits of an entry of the local vector table that can be written, by entry (§11.5.1).
pub const LVT_BITS: [u32; 6] = [0x7_00ff, 0x1_07ff, 0x1_07ff, 0x1_a7ff, 0x1_a7ff, 0x1_00ff];

/// The register or the value does not exist: the guest gets a general protection fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

bitflags::bitflags! {
    /// IA32_APIC_BASE without the address (§11.4.4).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct ApicBase: u64 {
        /// This is the bootstrap processor.
        const BSP = 1 << 8;
        /// x2APIC mode.
        const X2APIC = 1 << 10;
        /// The APIC is on.
        const ENABLE = 1 << 11;
    }
}

impl ApicBase {
    /// The bits of the address, for 52 bits of physical addresses.
    pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

    /// Whether a guest may go from here to there (§11.12.5).
    pub fn allows(self, next: Self) -> bool {
        let mode = |base: Self| (base.contains(Self::ENABLE), base.contains(Self::X2APIC));
        let off_or_x2apic = [(false, true), (true, true)];
        match mode(self) {
            (false, _) => !off_or_x2apic.contains(&mode(next)),
            (true, false) => mode(next) != (false, true),
            (true, true) => !matches!(mode(next), (false, true) | (true, false)),
        }
    }
}
