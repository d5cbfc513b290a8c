//! The two ways to a local APIC's registers: the page in memory (xAPIC, Intel SDM vol. 3 §11.4.1)
//! and the MSRs from 0x800 (x2APIC, §11.12.1). Each has its own rules of what may be read and
//! written; what a register does is written once, in [`super::local`].
//!
//! Writes that end an interrupt's service return its vector where the I/O APIC is to be told.

use super::local::{LINT0, LINT1, LocalApic};
use super::registers::{DIVIDE_BITS, ICR_BITS, LVT_BITS, Refused, SVR_BITS, error, number as n};
use super::timer::Instant;
use crate::device::Width;

impl LocalApic {
    /// Reads from the page. Registers are 4 bytes at multiples of 16; an access that is not one
    /// of those reads what is there of the register.
    pub fn read_page(&mut self, offset: u64, width: Width, now: &impl Instant) -> u64 {
        let [low, high, ..] = offset.to_le_bytes();
        let register = low >> 4 | high << 4;
        let shift = u32::from(low & 0xf) * 8;
        if shift >= 32 {
            return 0;
        }
        let value = self.read(register, now).unwrap_or_else(|| {
            self.fail(error::ILLEGAL_REGISTER);
            0
        });
        u64::from(value) >> shift & width.mask()
    }

    /// Writes to the page. Only aligned writes of 4 bytes count (§11.4.1).
    pub fn write_page(
        &mut self,
        offset: u64,
        width: Width,
        value: u64,
        now: &impl Instant,
    ) -> Option<u8> {
        let [low, high, ..] = offset.to_le_bytes();
        // Some guests end an interrupt with a shorter write; hardware lets them.
        if low & 0xf != 0 || width == Width::Quad {
            return None;
        }
        let value = u32::try_from(value & 0xffff_ffff).unwrap_or(0);
        let register = low >> 4 | high << 4;
        match register {
            n::ID | n::VERSION | n::APR | n::PPR | n::CURRENT_COUNT => None,
            n::ISR..=n::IRR_LAST => None,
            n::EOI => self.end(),
            n::LDR => {
                self.logical = value >> 24;
                self.publish();
                None
            }
            n::DFR => {
                self.flat = value >> 28 == 0xf;
                self.publish();
                None
            }
            n::ICR_HIGH => {
                self.command_to = value >> 24;
                None
            }
            n::ICR => {
                self.command(value & ICR_BITS, self.command_to);
                None
            }
            _ => {
                if !self.write(register, value, now) {
                    self.fail(error::ILLEGAL_REGISTER);
                }
                None
            }
        }
    }

    /// Reads register `index` of the MSRs from 0x800.
    ///
    /// # Errors
    /// If it does not exist, cannot be read, or the APIC is not in x2APIC mode.
    pub fn read_msr(&mut self, index: u8, now: &impl Instant) -> Result<u64, Refused> {
        if !self.is_wide() {
            return Err(Refused);
        }
        match index {
            n::ICR => Ok(u64::from(self.command_to) << 32 | u64::from(self.command)),
            n::EOI | n::SELF_IPI | n::ICR_HIGH | n::DFR | n::APR => Err(Refused),
            _ => self.read(index, now).map(u64::from).ok_or(Refused),
        }
    }

    /// Writes register `index` of the MSRs from 0x800.
    ///
    /// # Errors
    /// As [`LocalApic::read_msr`], and for reserved bits.
    pub fn write_msr(
        &mut self,
        index: u8,
        value: u64,
        now: &impl Instant,
    ) -> Result<Option<u8>, Refused> {
        if !self.is_wide() {
            return Err(Refused);
        }
        let [b0, b1, b2, b3, h0, h1, h2, h3] = value.to_le_bytes();
        let low = u32::from_le_bytes([b0, b1, b2, b3]);
        let high = u32::from_le_bytes([h0, h1, h2, h3]);
        if index == n::ICR {
            if low & !ICR_BITS != 0 {
                return Err(Refused);
            }
            self.command(low, high);
            return Ok(None);
        }
        let allowed = match index {
            n::EOI | n::ESR => 0,
            n::TPR | n::SELF_IPI => 0xff,
            n::SVR => SVR_BITS,
            n::DIVIDE => DIVIDE_BITS,
            n::INITIAL_COUNT => u32::MAX,
            // Writes to the entries' status bits are legal and change nothing: delivery status, and
            // remote IRR of the two pins, which Linux sets when it powers off.
            n::LVT_TIMER..=n::LVT_ERROR => {
                let entry = usize::from(index - n::LVT_TIMER);
                let pin = entry == LINT0 || entry == LINT1;
                LVT_BITS[entry] | 1 << 12 | u32::from(pin) << 14
            }
            _ => return Err(Refused),
        };
        if high != 0 || low & !allowed != 0 {
            return Err(Refused);
        }
        match index {
            n::EOI => return Ok(self.end()),
            n::SELF_IPI => self.command(1 << 18 | low, 0),
            _ => {
                self.write(index, low, now);
            }
        }
        Ok(None)
    }
}
