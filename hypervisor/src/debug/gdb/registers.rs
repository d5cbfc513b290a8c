//! Registers as the protocol has them (`i386:x86-64` with SSE).

use crate::debug::X86Registers;
use gdbstub_arch::x86::reg::X86_64CoreRegs;

/// A vCPU's registers for the debugger. The x87 tag word and its instruction and operand pointers
/// are not kept, and shown as 0.
pub fn shown(from: &X86Registers, to: &mut X86_64CoreRegs) {
    to.regs = from.general;
    to.rip = from.rip;
    to.eflags = low(from.rflags);
    let [cs, ss, ds, es, fs, gs] = from.segments.map(u32::from);
    let s = &mut to.segments;
    (s.cs, s.ss, s.ds, s.es, s.fs, s.gs) = (cs, ss, ds, es, fs, gs);
    to.st = from.x87;
    (to.fpu.fctrl, to.fpu.fstat) = (from.fcw.into(), from.fsw.into());
    to.xmm = from.xmm.map(u128::from_le_bytes);
    to.mxcsr = from.mxcsr;
}

/// What the debugger wants them to be: `to` as it is, with everything that the protocol has.
pub fn set(to: &mut X86Registers, from: &X86_64CoreRegs) {
    to.general = from.regs;
    to.rip = from.rip;
    to.rflags = to.rflags & !u64::from(u32::MAX) | u64::from(from.eflags);
    to.x87 = from.st;
    (to.fcw, to.fsw) = (half(from.fpu.fctrl), half(from.fpu.fstat));
    to.xmm = from.xmm.map(u128::to_le_bytes);
    to.mxcsr = from.mxcsr;
}

fn low(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).unwrap_or(0)
}

fn half(value: u32) -> u16 {
    u16::try_from(value & 0xffff).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_survive_the_way_there_and_back() {
        let mut before =
            X86Registers { rip: 1, rflags: 0x246, mxcsr: 0x1f80, ..Default::default() };
        before.general = core::array::from_fn(|i| 1 << i);
        before.xmm[3] = [7; 16];
        before.x87[2] = [9; 10];
        (before.fcw, before.fsw) = (0x37f, 0x20);
        let (mut wire, mut after) = (X86_64CoreRegs::default(), X86Registers::default());
        shown(&before, &mut wire);
        set(&mut after, &wire);
        assert_eq!(after, before);
    }
}
