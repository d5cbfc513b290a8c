//! `--dumpcore`: an ELF core file of a guest that aborted, for a debugger.
//!
//! [`CoreDirectory::open`] before the tender gives up its privileges, [`CoreDirectory::dump`]
//! when the guest has ended with the status of an abort. The file has one NT_PRSTATUS note and
//! one segment, guest memory from address 0, sparse where the guest never touched it (System V
//! gABI; Linux `struct elf_prstatus`). Registers come from the trap frame that Solo5's bindings
//! point their halt cookie at.

use hypervisor::memory::{Gpa, GuestMemory, HostBlock, Perms};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Access, AtFlags, Mode, OFlags, accessat, open, openat};
use rustix::io::{Errno, pwrite};
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// A place for core files.
pub struct CoreDirectory {
    directory: OwnedFd,
    path: OsString,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dumped {
    /// Path of the file.
    pub path: String,
    /// Pages with contents.
    pub pages: u64,
    /// Pages of guest memory.
    pub total: u64,
}

/// Registers of a trap, as Solo5's bindings leave them in the guest (`struct trap_regs`).
#[derive(Debug, Clone, Copy, Default, zerocopy::FromBytes, zerocopy::IntoBytes)]
#[repr(C)]
struct TrapRegs {
    cr2: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

const PAGE: u64 = 4096;
/// Bytes of `struct elf_prstatus`, and the offset of its registers.
const PRSTATUS: usize = 336;
const PRSTATUS_BYTES: u32 = 336;
const PRSTATUS_REGS: usize = 112;
/// Headers: ELF header, two program headers, note header with name, prstatus.
const NOTE: usize = 12 + 8 + PRSTATUS;
const HEADERS: usize = 64 + 2 * 56 + NOTE;

impl CoreDirectory {
    /// Opens the directory.
    ///
    /// # Errors
    /// If it is not a directory that may be written to; in words for a person.
    pub fn open(path: &OsStr) -> Result<Self, String> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(path, flags, Mode::empty())
            .map_err(|e| format!("dumpcore: cannot open dir {}: {e}", Path::new(path).display()))?;
        accessat(&directory, ".", Access::WRITE_OK, AtFlags::empty())
            .map_err(|_| format!("dumpcore: dir not writable: {}", Path::new(path).display()))?;
        Ok(Self { directory, path: path.to_owned() })
    }

    /// The directory, for rules about it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Writes the memory from address 0 to `end`.
    ///
    /// # Errors
    /// What could not be done, in words for a person.
    pub fn dump(
        &self,
        memory: &GuestMemory,
        end: u64,
        cookie: Option<Gpa>,
    ) -> Result<Dumped, String> {
        let name = format!("core.solo5-hvt.{}", std::process::id());
        let failed = |e: Errno| format!("dumpcore: {name}: {e}; the file may be incomplete");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file =
            openat(&self.directory, &*name, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
        let regs = cookie.and_then(|at| memory.read_obj::<TrapRegs>(at).ok()).unwrap_or_default();
        write_all(&file, &headers(end, &regs), 0).map_err(failed)?;
        let mut pages = 0;
        for block in memory.blocks() {
            pages += dump_block(&file, memory, block, end).map_err(failed)?;
        }
        rustix::fs::ftruncate(&file, HEADERS as u64 + end).map_err(failed)?;
        let path = format!("{}/{name}", Path::new(&self.path).display());
        Ok(Dumped { path, pages, total: end / PAGE })
    }
}

/// Writes the pages of a block that hold anything but zeros.
fn dump_block(
    file: &OwnedFd,
    memory: &GuestMemory,
    block: &HostBlock,
    end: u64,
) -> Result<u64, Errno> {
    let resident = resident(block)?;
    let mut pages = 0;
    let mut bytes = [0; 4096];
    for (index, _) in resident.iter().enumerate().filter(|(_, r)| **r & 1 == 1) {
        let at = block.range().start + index as u64 * PAGE;
        // A page that the host may not read on the guest's behalf is none of the guest's.
        let slice = memory.slice(Gpa(at), PAGE, Perms::READ);
        let Ok(slice) = slice.or_else(|_| memory.slice(Gpa(at), PAGE, Perms::EXEC)) else {
            continue;
        };
        if at >= end {
            break;
        }
        slice.copy_to(&mut bytes);
        write_all(file, &bytes, HEADERS as u64 + at)?;
        pages += 1;
    }
    Ok(pages)
}

/// mincore(2): which pages have been touched.
#[allow(unsafe_code)]
fn resident(block: &HostBlock) -> Result<Vec<u8>, Errno> {
    let len = usize::try_from(block.range().end - block.range().start).map_err(|_| Errno::NOMEM)?;
    let mut pages = vec![0; len.div_ceil(4096)];
    // SAFETY: the block is a mapping of this process, and the vector has a byte for each page.
    let result = unsafe { libc::mincore(block.host().cast(), len, pages.as_mut_ptr()) };
    if result == 0 { Ok(pages) } else { Err(Errno::NOMEM) }
}

fn write_all(file: &OwnedFd, mut bytes: &[u8], mut at: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match pwrite(file, bytes, at) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => {
                bytes = &bytes[count..];
                at += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn headers(end: u64, regs: &TrapRegs) -> Vec<u8> {
    const ET_CORE: u16 = 4;
    const EM_X86_64: u16 = 62;
    const PT_LOAD: u32 = 1;
    const PT_NOTE: u32 = 4;
    const NT_PRSTATUS: u32 = 1;
    let mut out = Vec::with_capacity(HEADERS);
    out.extend(*b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    out.extend(ET_CORE.to_le_bytes());
    out.extend(EM_X86_64.to_le_bytes());
    out.extend(1u32.to_le_bytes());
    for word in [0u64, 64, 0] {
        out.extend(word.to_le_bytes());
    }
    out.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 2, 0, 0, 0] {
        out.extend(half.to_le_bytes());
    }
    let segments = [(PT_NOTE, 64 + 2 * 56, NOTE as u64), (PT_LOAD, HEADERS as u64, end)];
    for (kind, offset, size) in segments {
        out.extend(kind.to_le_bytes());
        out.extend(0u32.to_le_bytes());
        for word in [offset, 0, 0, size, size, 0] {
            out.extend(word.to_le_bytes());
        }
    }
    for word in [5, PRSTATUS_BYTES, NT_PRSTATUS] {
        out.extend(word.to_le_bytes());
    }
    out.extend(*b"CORE\0\0\0\0");
    out.extend(prstatus(regs));
    out
}

/// `struct user_regs_struct` ends with RIP, CS, flags, RSP, SS, then the bases and selectors.
fn prstatus(regs: &TrapRegs) -> [u8; PRSTATUS] {
    const RIP: usize = 16;
    let mut status = [0; PRSTATUS];
    let values = [regs.rip, regs.cs, regs.rflags, regs.rsp, regs.ss];
    for (index, value) in values.into_iter().enumerate() {
        let at = PRSTATUS_REGS + (RIP + index) * 8;
        status[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_as_long_as_they_say() {
        let regs = TrapRegs { rip: 0x10_1234, ..TrapRegs::default() };
        let bytes = headers(0x20_0000, &regs);
        assert_eq!(bytes.len(), HEADERS);
        let rip = HEADERS - PRSTATUS + PRSTATUS_REGS + 16 * 8;
        assert_eq!(bytes[rip..rip + 8], 0x10_1234u64.to_le_bytes());
    }
}
