//! The I/O and MSR permission maps (AMD APM vol. 2 §15.10.1, §15.11): the same for all guests.
//!
//! Every port leaves the guest. Of the MSRs those pass that VMLOAD and VMSAVE switch.

#![allow(unsafe_code)]

use crate::{HostPhys, Platform};

/// Registers that belong to the guest while it runs: SYSENTER_CS, ESP, EIP; STAR, LSTAR, CSTAR,
/// SFMASK; FS.Base, GS.Base, KernelGsBase.
pub(crate) const PASSED: [u32; 10] = [
    0x174,
    0x175,
    0x176,
    0xc000_0081,
    0xc000_0082,
    0xc000_0083,
    0xc000_0084,
    0xc000_0100,
    0xc000_0101,
    0xc000_0102,
];

/// 12 KiB for ports; the frame has 16.
const IO_ORDER: u8 = 2;
/// 8 KiB for MSRs.
const MSR_ORDER: u8 = 1;

/// Both maps.
pub(crate) struct Maps<P: Platform> {
    platform: &'static P,
    pub io: HostPhys,
    pub msr: HostPhys,
}

impl<P: Platform> Maps<P> {
    /// Makes them; `None` where there is no memory.
    pub fn new(platform: &'static P) -> Option<Self> {
        let io = platform.alloc(IO_ORDER)?;
        let Some(msr) = platform.alloc(MSR_ORDER) else {
            // SAFETY: from above, and not used.
            unsafe { platform.free(io, IO_ORDER) };
            return None;
        };
        for (at, order) in [(io, IO_ORDER), (msr, MSR_ORDER)] {
            // SAFETY: the whole frame, which is ours.
            unsafe { platform.virt(at).write_bytes(0xff, 4096 << order) };
        }
        for (byte, mask) in PASSED.into_iter().filter_map(place) {
            // SAFETY: inside of the frame's 8 KiB.
            unsafe { *platform.virt(msr).add(byte) &= !mask };
        }
        Some(Self { platform, io, msr })
    }
}

/// Where an MSR's two bits are, read and write: byte, and mask in it.
fn place(index: u32) -> Option<(usize, u8)> {
    let (start, number) = match index {
        0..0x2000 => (0, index),
        0xc000_0000..0xc000_2000 => (0x800, index - 0xc000_0000),
        0xc001_0000..0xc001_2000 => (0x1000, index - 0xc001_0000),
        _ => return None,
    };
    let bits = usize::try_from(number).ok()? * 2;
    Some((start + bits / 8, 3 << (bits % 8)))
}

impl<P: Platform> Drop for Maps<P> {
    fn drop(&mut self) {
        // SAFETY: from `new`; no guest is left that uses them.
        unsafe {
            self.platform.free(self.io, IO_ORDER);
            self.platform.free(self.msr, MSR_ORDER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::board;

    #[test]
    fn only_the_guests_own_registers_pass() {
        let board = board();
        let maps = Maps::new(board).unwrap();
        let bits = |at: HostPhys, bit: usize| {
            // SAFETY: inside of the maps.
            unsafe { *board.virt(at).add(bit / 8) >> (bit % 8) }
        };
        assert!((0..0x10020).all(|port| bits(maps.io, port) & 1 == 1));
        let open = |index: u32, bit: usize| {
            let expected = if PASSED.contains(&index) { 0 } else { 3 };
            assert_eq!(bits(maps.msr, bit) & 3, expected, "{index:#x}");
        };
        for n in 0..0x2000 {
            let bit = n as usize * 2;
            open(n, bit);
            open(0xc000_0000 + n, 0x800 * 8 + bit);
            open(0xc001_0000 + n, 0x1000 * 8 + bit);
        }
        drop(maps);
        assert_eq!(board.frames(), 0);
    }
}
