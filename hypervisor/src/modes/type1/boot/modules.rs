//! Modules: files that a multiboot or PVH kernel is given in memory, each with a text of its own.
//! The RAM disk is the first.
//!
//! They lie one behind the other in ascending order, each from a page's beginning, as high as the
//! kernel can reach.
//!
//! Sources: Multiboot Specification 0.6.96 §3.3 (`mods_*`); Xen
//! `public/arch-x86/hvm/start_info.h` (`hvm_modlist_entry`).

use super::read::load;
use super::{Given, StartError, place};
use crate::host::Blob;
use crate::memory::{Gpa, GuestMemory};
use alloc::vec::Vec;
use core::ops::Range;

const PAGE: u64 = 0x1000;

/// A module.
#[derive(Clone, Copy)]
pub struct Module<'a> {
    /// Its contents.
    pub file: &'a dyn Blob,
    /// Its text, without a zero byte.
    pub text: &'a [u8],
}

/// A module in the guest's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Its first byte.
    pub start: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Where its text is, which a zero byte ends.
    pub text: u64,
    /// The size of its text without that byte.
    pub text_size: u64,
}

/// Loads all modules between the kernel's end and `limit`, and their texts into `texts`.
///
/// # Errors
/// If they do not fit, a text has a zero byte, or a file cannot be read.
pub fn place(
    memory: &GuestMemory,
    given: &Given<'_>,
    kernel_end: u64,
    limit: u64,
    texts: Range<u64>,
) -> Result<Vec<Placed>, StartError> {
    let ramdisk = given.ramdisk.filter(|blob| !blob.is_empty());
    let first = ramdisk.map(|file| Module { file, text: b"" });
    let modules: Vec<_> = first.into_iter().chain(given.modules.iter().copied()).collect();
    let end = limit.min(given.low_ram_end());
    let size = modules.iter().fold(0, |sum: u64, module| sum.saturating_add(room(module)));
    let none = StartError::ModulesTooLarge { count: modules.len(), size, start: kernel_end, end };
    let mut at = place::highest(kernel_end.next_multiple_of(PAGE), end, size).ok_or(none)?;
    let mut text = texts.start;
    let mut placed = Vec::with_capacity(modules.len());
    for module in &modules {
        let size = module.file.len();
        load(module.file, "a module", 0, size, memory, Gpa(at))?;
        let text_size = write_text(memory, module.text, text..texts.end)?;
        placed.push(Placed { start: at, size, text, text_size });
        at += room(module);
        text += text_size + 1;
    }
    Ok(placed)
}

/// Whole pages. A size that cannot be rounded up fits nowhere.
fn room(module: &Module<'_>) -> u64 {
    module.file.len().checked_next_multiple_of(PAGE).unwrap_or(u64::MAX)
}

fn write_text(memory: &GuestMemory, text: &[u8], room: Range<u64>) -> Result<u64, StartError> {
    let (size, limit) = (text.len() as u64, room.end.saturating_sub(room.start + 1));
    if size > limit {
        return Err(StartError::CommandLineTooLong(size, limit));
    }
    if text.contains(&0) {
        return Err(StartError::CommandLineZero);
    }
    memory.write_bytes(Gpa(room.start), text)?;
    memory.write_bytes(Gpa(room.start + size), &[0])?;
    Ok(size)
}
