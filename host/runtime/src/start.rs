//! From the kernel's jump to `_start` to `main`: relocation, the read-only part of the data, the
//! main thread's own memory, the environment.
//!
//! The program is position-independent and relocates itself. Until that is done, nothing may be
//! used that needs it: no table of functions, no string in a constant, no panic.

use crate::{environment, process, thread};
use core::ffi::{c_char, c_int};

/// `Elf64_Ehdr`, as far as it is used.
#[repr(C)]
struct ElfHeader {
    ident: [u8; 16],
    kind: u16,
    machine: u16,
    version: u32,
    entry: u64,
    program_headers: u64,
    section_headers: u64,
    flags: u32,
    size: u16,
    program_header_size: u16,
    program_header_count: u16,
}

/// `Elf64_Phdr`.
#[repr(C)]
#[derive(Clone, Copy)]
struct ProgramHeader {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    physical: u64,
    file_size: u64,
    size: u64,
    align: u64,
}

/// `Elf64_Dyn`.
#[repr(C)]
struct Dynamic {
    tag: u64,
    value: u64,
}

/// `Elf64_Rela`.
#[repr(C)]
struct Rela {
    offset: u64,
    info: u64,
    addend: u64,
}

const PT_DYNAMIC: u32 = 2;
const PT_TLS: u32 = 7;
const PT_GNU_RELRO: u32 = 0x6474_e552;
const DT_RELA: u64 = 7;
const DT_RELASZ: u64 = 8;
const R_X86_64_RELATIVE: u64 = 8;
const PAGE: usize = 4096;

#[cfg(not(test))]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "lea rsi, [rip + __ehdr_start]",
    "and rsp, -16",
    "call {begin}",
    "ud2",
    begin = sym begin,
);

#[cfg(not(test))]
unsafe extern "C" {
    fn main(argc: c_int, argv: *const *const c_char) -> c_int;
}
#[cfg(test)]
unsafe fn main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    0
}

/// The first function.
#[cfg_attr(test, allow(dead_code, reason = "the tests have another start"))]
unsafe extern "C" fn begin(stack: *const usize, elf: *const ElfHeader) -> ! {
    // SAFETY: the kernel has put the count and the arguments there, then the environment and the
    // auxiliary vector; the linker has put the headers into the program's first page.
    unsafe {
        let base = elf.addr();
        relocate(base, segment(elf, PT_DYNAMIC));
        // From here on everything may be used.
        if let Some(relro) = segment(elf, PT_GNU_RELRO) {
            let start = (base + to_usize(relro.address)) & !(PAGE - 1);
            let end = (base + to_usize(relro.address + relro.size)) & !(PAGE - 1);
            let read = usize::try_from(libc::PROT_READ).unwrap_or(0);
            crate::syscall::raw(libc::SYS_mprotect, [start, end - start, read, 0, 0, 0]);
        }
        let tls = segment(elf, PT_TLS).map(|tls| thread::Template {
            data: (base + to_usize(tls.address)) as *const u8,
            file_size: to_usize(tls.file_size),
            size: to_usize(tls.size),
            align: to_usize(tls.align),
        });
        thread::start_main(tls);
        let argc = *stack;
        let argv = stack.add(1).cast::<*const c_char>();
        environment::set(argv.add(argc + 1).cast_mut().cast());
        process::exit(main(c_int::try_from(argc).unwrap_or(c_int::MAX), argv))
    }
}

/// The first segment of a kind, with addresses as the linker saw them.
#[inline(always)]
unsafe fn segment(elf: *const ElfHeader, kind: u32) -> Option<ProgramHeader> {
    // SAFETY: the headers are in the program's first page.
    unsafe {
        let headers = elf.byte_add(to_usize((*elf).program_headers)).cast::<ProgramHeader>();
        let mut index = 0;
        while index < (*elf).program_header_count as usize {
            let header = headers.add(index);
            if (*header).kind == kind {
                return Some(*header);
            }
            index += 1;
        }
    }
    None
}

/// Adds the program's base to every word that the linker has listed. Static programs have no
/// other relocations; one that had would be caught by the linker's `-z text` or crash in its tests.
#[inline(always)]
unsafe fn relocate(base: usize, dynamic: Option<ProgramHeader>) {
    let Some(dynamic) = dynamic else { return };
    // SAFETY: the linker's tables, which describe words inside of this program.
    unsafe {
        let mut entry = (base + to_usize(dynamic.address)) as *const Dynamic;
        let (mut table, mut size) = (0, 0);
        while (*entry).tag != 0 {
            match (*entry).tag {
                DT_RELA => table = to_usize((*entry).value),
                DT_RELASZ => size = to_usize((*entry).value),
                _ => {}
            }
            entry = entry.add(1);
        }
        let mut rela = (base + table) as *const Rela;
        let end = rela.byte_add(size);
        while rela < end {
            if (*rela).info == R_X86_64_RELATIVE {
                let word = (base + to_usize((*rela).offset)) as *mut usize;
                word.write(base.wrapping_add(to_usize((*rela).addend)));
            }
            rela = rela.add(1);
        }
    }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "x86_64 is a 64-bit target")]
const fn to_usize(value: u64) -> usize {
    value as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_words_move_with_the_program_and_no_others() {
        #[repr(C, align(16))]
        struct Program {
            words: [usize; 4],
            rela: [Rela; 3],
            dynamic: [Dynamic; 4],
        }
        let offset = |field: usize| u64::try_from(field).unwrap();
        let table = offset(core::mem::offset_of!(Program, rela));
        let rela = |word: u64, info, addend| Rela { offset: word * 8, info, addend };
        let entry = |tag, value| Dynamic { tag, value };
        let mut program = Program {
            words: [1, 2, 3, 4],
            rela: [rela(0, 8, 0x100), rela(2, 8, 0), rela(3, 6, 0x200)],
            dynamic: [entry(DT_RELASZ, 72), entry(30, 9), entry(DT_RELA, table), entry(0, 0)],
        };
        let header = ProgramHeader {
            kind: PT_DYNAMIC,
            flags: 0,
            offset: 0,
            address: offset(core::mem::offset_of!(Program, dynamic)),
            physical: 0,
            file_size: 0,
            size: 0,
            align: 0,
        };
        let base = (&raw mut program).expose_provenance();
        // SAFETY: the tables describe `program`.
        unsafe { relocate(base, Some(header)) };
        assert_eq!(program.words, [base + 0x100, 2, base, 4]);
    }
}
