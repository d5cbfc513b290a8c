//! Rewrites a hypercall site, once it has trapped twice, into a jump to the monitor. Not the first
//! time: most sites of a short-lived guest are passed once, and a trap costs less than this.
//!
//! A site is `mov edx, PORT; out dx, eax`, as compilers write Solo5's hypercalls. The five bytes
//! of the `mov` become a five-byte `jmp` to a stub that loads EDX itself, so every instruction
//! boundary of the guest's code stays one: code that jumps to the `out` still traps and is right.
//! Anything else is left alone and goes on trapping.
//!
//! W^X holds: the guest's text and the stubs are never mapped writable here. The bytes go through
//! the file that backs the guest's memory.

use super::fast;
use crate::layout::{LOWEST, STUB_DATA, STUBS};
use hypervisor::memory::{Gpa, GuestMemory, Perms};
use rustix::fd::{BorrowedFd, RawFd};

/// Bytes of a site's `mov`.
const MOV: u64 = 5;
/// Bytes of a stub.
const STUB: usize = 32;
/// `mov edx, imm32`.
const MOV_EDX: u8 = 0xba;
/// The REX prefix that makes it `mov r10d, imm32`.
const REX_B: u8 = 0x41;
const JMP_REL32: u8 = 0xe9;

/// How many sites that have trapped once are remembered.
const REMEMBERED: usize = 64;

/// Rewrites sites until there is no room for more stubs.
pub struct Patcher {
    file: RawFd,
    next: u64,
    /// Sites that have trapped once, each at its address' place; a later one takes the place over.
    trapped: [u64; REMEMBERED],
    prepared: bool,
}

impl Patcher {
    /// A patcher that writes to the guest's memory through `file`, a descriptor which stays open
    /// as long as the process; `None` rewrites nothing.
    pub fn new(file: Option<RawFd>) -> Self {
        let trapped = [0; REMEMBERED];
        Self { file: file.unwrap_or(-1), next: STUBS.start, trapped, prepared: false }
    }

    /// Notes that the `out` at `out` has trapped; says whether it had done so before.
    fn again(&mut self, out: u64) -> bool {
        let place = usize::try_from(out % REMEMBERED as u64).unwrap_or(0);
        core::mem::replace(&mut self.trapped[place], out) == out
    }

    /// Prepares the fast way, once; without it nothing is rewritten.
    fn prepare(&mut self) -> bool {
        if !self.prepared {
            self.prepared = true;
            if !fast::prepare() {
                self.file = -1;
            }
        }
        self.file >= 0
    }

    /// The `out` at `out` has trapped: rewrites its site, if it is one.
    pub fn trapped(&mut self, memory: &GuestMemory, out: u64, port: u16) {
        if self.file >= 0 && self.again(out) {
            self.rewrite(memory, out, port);
        }
    }

    fn rewrite(&mut self, memory: &GuestMemory, out: u64, port: u16) {
        let room = self.next + STUB as u64 <= STUBS.end;
        if !room || !is_site(memory, out, port) || !self.prepare() {
            return;
        }
        let at = self.next;
        let (Some(stub), Some(jump)) = (stub(at, port, out), jump(out.wrapping_sub(MOV), at))
        else {
            return;
        };
        self.next += STUB as u64;
        // The stub first: the jump must never lead nowhere.
        if self.write(at, &stub) {
            self.write(out - MOV, &jump);
        }
    }

    fn write(&self, at: u64, bytes: &[u8]) -> bool {
        // SAFETY: the descriptor stays open, as `new` demands.
        let file = unsafe { BorrowedFd::borrow_raw(self.file) };
        rustix::io::pwrite(file, bytes, at - LOWEST) == Ok(bytes.len())
    }
}

fn is_site(memory: &GuestMemory, out: u64, port: u16) -> bool {
    let Some(before) = out.checked_sub(MOV + 1) else { return false };
    let mut code = [0; 6];
    if memory.read_bytes(Gpa(before), &mut code).is_err() {
        return false;
    }
    let [low, high] = port.to_le_bytes();
    let text = |at| {
        let perms = memory.perms_at(Gpa(at));
        perms.is_some_and(|p| p.contains(Perms::EXEC) && !p.contains(Perms::WRITE))
    };
    code[0] != REX_B && code[1..] == [MOV_EDX, low, high, 0, 0] && text(before + 1) && text(out)
}

/// `jmp` at `from` to `to`, if that is near enough.
fn jump(from: u64, to: u64) -> Option<[u8; 5]> {
    let distance = to.wrapping_sub(from.wrapping_add(5)).cast_signed();
    let [a, b, c, d] = i32::try_from(distance).ok()?.to_le_bytes();
    Some([JMP_REL32, a, b, c, d])
}

/// The stub at `at`. It touches no guest memory, not even the stack: the stack pointer goes to
/// [`STUB_DATA`], and in its place goes the address of the stub's last instruction, to which
/// [`super::fast`] returns.
fn stub(at: u64, port: u16, out: u64) -> Option<[u8; STUB]> {
    const RETURN: usize = 27;
    let data = u32::try_from(STUB_DATA).ok()?.to_le_bytes();
    let entry = u32::try_from(STUB_DATA + 8).ok()?.to_le_bytes();
    let mut code = [0; STUB];
    code[0] = MOV_EDX;
    code[1..3].copy_from_slice(&port.to_le_bytes());
    // mov [STUB_DATA], rsp
    code[5..9].copy_from_slice(&[0x48, 0x89, 0x24, 0x25]);
    code[9..13].copy_from_slice(&data);
    // lea rsp, [rip + 7]: the address of the last instruction
    code[13..20].copy_from_slice(&[0x48, 0x8d, 0x25, 7, 0, 0, 0]);
    // jmp [STUB_DATA + 8]
    code[20..23].copy_from_slice(&[0xff, 0x24, 0x25]);
    code[23..27].copy_from_slice(&entry);
    code[RETURN..].copy_from_slice(&jump(at + RETURN as u64, out + 1)?);
    Some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_are_remembered_until_another_takes_their_place() {
        let mut patcher = Patcher::new(None);
        assert!(!patcher.again(0x10_0007));
        assert!(!patcher.again(0x10_0008));
        assert!(patcher.again(0x10_0007));
        assert!(!patcher.again(0x10_0007 + REMEMBERED as u64));
        assert!(!patcher.again(0x10_0007));
    }

    #[test]
    fn jumps_reach_two_gibibytes() {
        assert_eq!(jump(0x1000, 0x1005), Some([0xe9, 0, 0, 0, 0]));
        assert_eq!(jump(0x1000, 0), Some([0xe9, 0xfb, 0xef, 0xff, 0xff]));
        assert_eq!(jump(0, 0x8000_0004), Some([0xe9, 0xff, 0xff, 0xff, 0x7f]));
        assert_eq!(jump(0, 0x8000_0005), None);
        assert_eq!(jump(0x9000_0000, STUBS.start), None);
    }

    #[test]
    fn a_stub_ends_with_a_jump_behind_the_site() {
        let code = stub(STUBS.start, 0x502, 0x10_2000).unwrap();
        assert_eq!(code[..5], [0xba, 2, 5, 0, 0]);
        let rel = i32::from_le_bytes(code[28..32].try_into().unwrap());
        assert_eq!((STUBS.start + 32).wrapping_add_signed(rel.into()), 0x10_2001);
    }
}
