//! A traced process's registers as a debugger of its guest sees them.
//!
//! General and vector registers are the guest's own. Selectors and the interrupt flag are kept by
//! the monitor ([`crate::emulate::Cpu`]), in the guest's process: what is read there is the
//! guest's word about itself, and only shown.

use super::tracee::Tracee;
use crate::emulate::Cpu;
use hypervisor::debug::X86Registers;
use libc::{user_fpregs_struct, user_regs_struct};
use rustix::io::Errno;

/// Flags that a debugger may change: CF PF AF ZF SF TF DF OF AC ID.
const USER_FLAGS: u64 = 0x0024_0dd5;
/// Interrupt flag, and the flag that is always set.
const IF: u64 = 1 << 9;
const ALWAYS: u64 = 1 << 1;
/// MXCSR bits that are not reserved (Intel SDM vol. 1 §10.2.3).
const MXCSR: u32 = 0xffff;

/// All registers; `cpu` is where the process has the monitor's [`Cpu`].
///
/// # Errors
/// The system's.
pub fn read(tracee: &Tracee, cpu: usize) -> Result<X86Registers, Errno> {
    let r = tracee.registers()?;
    let f = tracee.vectors()?;
    let interrupts = byte(tracee, cpu + Cpu::INTERRUPTS_AT)? != 0;
    Ok(X86Registers {
        general: [
            r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10, r.r11,
            r.r12, r.r13, r.r14, r.r15,
        ],
        rip: r.rip,
        rflags: r.eflags & !IF | if interrupts { IF } else { 0 },
        segments: segments(tracee, cpu)?,
        fs_base: r.fs_base,
        gs_base: r.gs_base,
        x87: x87(&f),
        fcw: f.cwd,
        fsw: f.swd,
        xmm: xmm(&f),
        mxcsr: f.mxcsr,
    })
}

/// Sets everything but the selectors and the interrupt flag.
///
/// # Errors
/// The system's, for values that a process cannot have.
pub fn write(tracee: &Tracee, new: &X86Registers) -> Result<(), Errno> {
    let mut r: user_regs_struct = tracee.registers()?;
    [
        r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10, r.r11, r.r12,
        r.r13, r.r14, r.r15,
    ] = new.general;
    r.rip = new.rip;
    r.eflags = new.rflags & USER_FLAGS | IF | ALWAYS;
    (r.fs_base, r.gs_base) = (new.fs_base, new.gs_base);
    let mut f = tracee.vectors()?;
    (f.cwd, f.swd, f.mxcsr) = (new.fcw, new.fsw, new.mxcsr & MXCSR);
    for (to, from) in f.st_space.chunks_exact_mut(4).zip(&new.x87) {
        put(to, from);
    }
    for (to, from) in f.xmm_space.chunks_exact_mut(4).zip(&new.xmm) {
        put(to, from);
    }
    tracee.set_registers(&r)?;
    tracee.set_vectors(&f)
}

fn byte(tracee: &Tracee, at: usize) -> Result<u8, Errno> {
    Ok(tracee.word(at)?.to_le_bytes()[0])
}

fn half(tracee: &Tracee, at: usize) -> Result<u16, Errno> {
    let [low, high, ..] = tracee.word(at)?.to_le_bytes();
    Ok(u16::from_le_bytes([low, high]))
}

/// CS, SS, DS, ES, FS, GS. The monitor has them by their number: ES, -, SS, DS, FS, GS.
fn segments(tracee: &Tracee, cpu: usize) -> Result<[u16; 6], Errno> {
    let cs = half(tracee, cpu + Cpu::CS_AT)?;
    let mut all = [cs; 6];
    for (to, number) in all.iter_mut().skip(1).zip([2, 3, 0, 4, 5]) {
        *to = half(tracee, cpu + Cpu::DATA_AT + 2 * number)?;
    }
    Ok(all)
}

fn x87(f: &user_fpregs_struct) -> [[u8; 10]; 8] {
    let mut all = [[0; 10]; 8];
    for (to, from) in all.iter_mut().zip(f.st_space.chunks_exact(4)) {
        get(to, from);
    }
    all
}

fn xmm(f: &user_fpregs_struct) -> [[u8; 16]; 16] {
    let mut all = [[0; 16]; 16];
    for (to, from) in all.iter_mut().zip(f.xmm_space.chunks_exact(4)) {
        get(to, from);
    }
    all
}

fn get(to: &mut [u8], from: &[u32]) {
    let bytes = from.iter().flat_map(|word| word.to_le_bytes());
    to.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
}

fn put(to: &mut [u32], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from.chunks(4)) {
        let mut bytes = to.to_le_bytes();
        bytes[..from.len()].copy_from_slice(from);
        *to = u32::from_le_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eighty_bits_leave_the_padding_alone() {
        let mut words = [u32::MAX; 4];
        put(&mut words, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(words, [0x0403_0201, 0x0807_0605, 0xffff_0a09, u32::MAX]);
        let mut bytes = [0; 10];
        get(&mut bytes, &words);
        assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    }
}
