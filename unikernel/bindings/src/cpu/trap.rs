//! Exceptions: one line that names the cause, then halt with status 255 and a cookie that points
//! to the trap frame, in the form that Solo5's core dumps read (`struct x86_trap_regs`).

#![allow(unsafe_code)]

use core::fmt;

/// What the entry code leaves on the stack; the CPU pushed all from `code` on.
#[repr(C)]
pub(super) struct Frame {
    /// r15 to r8, rdi, rsi, rbp, rbx, rdx, rcx, rax.
    registers: [u64; 15],
    vector: u64,
    code: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// `struct x86_trap_regs`, then the vector and the general registers, then zeros.
#[repr(C, align(16))]
struct Cookie {
    cr2: u64,
    code: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
    vector: u64,
    registers: [u64; 15],
    rest: [u64; 41],
}

const _: () = assert!(size_of::<Cookie>() == 512);

const PAGE_FAULT: u64 = 14;

const NAMES: [&str; 22] = [
    "#DE", "#DB", "#NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "#9", "#TS", "#NP", "#SS",
    "#GP", "#PF", "#15", "#MF", "#AC", "#MC", "#XM", "#VE", "#CP",
];

struct Name(u64);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match usize::try_from(self.0).ok().and_then(|vector| NAMES.get(vector)) {
            Some(name) => f.write_str(name),
            None => write!(f, "#{}", self.0),
        }
    }
}

impl Cookie {
    fn new(frame: &Frame, cr2: u64) -> Self {
        Self {
            cr2,
            code: frame.code,
            rip: frame.rip,
            cs: frame.cs,
            rflags: frame.rflags,
            rsp: frame.rsp,
            ss: frame.ss,
            vector: frame.vector,
            registers: frame.registers,
            rest: [0; 41],
        }
    }
}

impl fmt::Display for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, rip, rsp, rflags, cr2, .. } = self;
        write!(f, "trap: type={} ec={code:#x} rip={rip:#x} rsp={rsp:#x}", Name(self.vector))?;
        write!(f, " rflags={rflags:#x}")?;
        if self.vector == PAGE_FAULT { write!(f, " cr2={cr2:#x}") } else { Ok(()) }
    }
}

#[cfg(not(test))]
mod entry {
    use super::{Cookie, Frame, PAGE_FAULT};
    use crate::exit::{STATUS_ABORT, halt};
    use core::arch::{asm, global_asm};

    /// Bytes between the entries of two vectors.
    const STRIDE: usize = 16;

    // Vectors 8, 10 to 14, 17, 21, 29 and 30 push an error code; for the others a zero stands in.
    global_asm!(
        ".balign 16",
        "__trap_entries:",
        ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,\
              16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
        ".balign 16",
        ".if ((0x60227d00 >> \\n) & 1) == 0",
        "push 0",
        ".endif",
        "push \\n",
        "jmp __trap_common",
        ".endr",
        "__trap_common:",
        "cld",
        "push rax",
        "push rcx",
        "push rdx",
        "push rbx",
        "push rbp",
        "push rsi",
        "push rdi",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov rdi, rsp",
        "call {report}",
        "ud2",
        report = sym report,
    );

    unsafe extern "C" {
        static __trap_entries: u8;
    }

    /// Address of a vector's entry code.
    pub(crate) fn entry(vector: usize) -> usize {
        (&raw const __trap_entries).addr() + vector * STRIDE
    }

    /// Prints and ends. A second exception in here starts over on the same stack, which is harmless.
    unsafe extern "C" fn report(frame: *const Frame) -> ! {
        // SAFETY: the entry code passes what it pushed.
        let frame = unsafe { &*frame };
        let cr2 = if frame.vector == PAGE_FAULT { read_cr2() } else { 0 };
        let cookie = Cookie::new(frame, cr2);
        crate::println!("unikernel: {cookie}");
        halt(STATUS_ABORT, (&raw const cookie).addr() as u64)
    }

    fn read_cr2() -> u64 {
        let cr2;
        // SAFETY: reading it has no effect.
        unsafe { asm!("mov rdi, cr2", out("rdi") cr2, options(nomem, nostack, preserves_flags)) };
        cr2
    }
}

#[cfg(not(test))]
pub(super) use entry::entry;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(vector: u64) -> Frame {
        let registers = [9; 15];
        Frame { registers, vector, code: 2, rip: 0x10_0000, cs: 8, rflags: 2, rsp: 0x8000, ss: 16 }
    }

    #[test]
    fn a_page_fault_names_its_address() {
        let line = Cookie::new(&frame(14), 0xdead).to_string();
        assert_eq!(line, "trap: type=#PF ec=0x2 rip=0x100000 rsp=0x8000 rflags=0x2 cr2=0xdead");
    }

    #[test]
    fn unknown_vectors_have_a_number() {
        assert!(Cookie::new(&frame(31), 0).to_string().starts_with("trap: type=#31 ec"));
    }
}
