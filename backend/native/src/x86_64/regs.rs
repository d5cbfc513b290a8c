//! The general-purpose registers of a vCPU.

/// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15, as instructions number them.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Gprs(pub [u64; 16]);

impl Gprs {
    pub const RAX: usize = 0;
    pub const RCX: usize = 1;
    pub const RDX: usize = 2;
    pub const RBX: usize = 3;
    pub const RSP: usize = 4;
    #[cfg_attr(test, expect(dead_code, reason = "the world switch is scripted in tests"))]
    pub const RBP: usize = 5;
    pub const RSI: usize = 6;
    pub const RDI: usize = 7;

    /// The whole register; `number` is below 16.
    pub fn get(&self, number: u8) -> u64 {
        self.0[usize::from(number & 15)]
    }

    /// Replaces the low `size` bytes; 4 bytes clear the upper half, as instructions do.
    pub fn set(&mut self, number: u8, size: u8, value: u64) {
        let register = &mut self.0[usize::from(number & 15)];
        *register = merge(*register, size, value);
    }

    /// EDX:EAX.
    pub fn edx_eax(&self) -> u64 {
        self.0[Self::RDX] << 32 | self.0[Self::RAX] & 0xffff_ffff
    }

    /// Sets EDX:EAX, and clears the upper halves.
    pub fn set_edx_eax(&mut self, value: u64) {
        self.0[Self::RAX] = value & 0xffff_ffff;
        self.0[Self::RDX] = value >> 32;
    }
}

/// `old` with its low `size` bytes replaced; 4 bytes clear the upper half.
pub(crate) const fn merge(old: u64, size: u8, value: u64) -> u64 {
    match size {
        1 => old & !0xff | value & 0xff,
        2 => old & !0xffff | value & 0xffff,
        4 => value & 0xffff_ffff,
        _ => value,
    }
}

/// The low `size` bytes.
pub(crate) const fn truncate(value: u64, size: u8) -> u64 {
    match size {
        1 => value & 0xff,
        2 => value & 0xffff,
        4 => value & 0xffff_ffff,
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_keep_or_clear_what_instructions_do() {
        let mut gprs = Gprs::default();
        gprs.0[Gprs::RCX] = u64::MAX;
        gprs.set(1, 1, 0x100);
        assert_eq!(gprs.get(1), u64::MAX - 0xff);
        gprs.set(1, 2, 0x1_0002);
        assert_eq!(gprs.get(1), 0xffff_ffff_ffff_0002);
        gprs.set(1, 4, 0x1_0000_0003);
        assert_eq!(gprs.get(1), 3);
        gprs.set_edx_eax(0x1_0000_0002);
        assert_eq!((gprs.get(0), gprs.get(2), gprs.edx_eax()), (2, 1, 0x1_0000_0002));
    }
}
