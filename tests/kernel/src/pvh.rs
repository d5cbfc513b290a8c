//! What PVH hands over (Xen `include/public/arch-x86/hvm/start_info.h`).

use core::ffi::CStr;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// What this kernel takes of it.
pub struct Boot {
    /// The command line; empty where it is not UTF-8.
    pub command_line: &'static str,
    /// Bytes of RAM.
    pub ram_bytes: u64,
    /// End of the highest RAM.
    pub ram_end: u64,
    /// End of the RAM that starts at 1 MiB.
    pub low_end: u64,
    /// Where ACPI's root pointer is; 0 if nobody said.
    pub rsdp: u64,
}

#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Range {
    start: u64,
    len: u64,
    kind: u32,
    reserved: u32,
}

const MAGIC: u32 = 0x336e_c578;
const RAM: u32 = 1;

impl Boot {
    /// Reads the start information.
    ///
    /// # Safety
    /// There is a valid one at this address, mapped one to one, that nobody changes.
    pub unsafe fn read(at: u64) -> Self {
        // SAFETY: the caller's promise.
        let info = unsafe { &*core::ptr::with_exposed_provenance::<StartInfo>(address(at)) };
        assert!(info.magic == MAGIC && info.version >= 1, "not started by PVH");
        // SAFETY: the caller's promise covers what the structure points to.
        let (command_line, map) = unsafe {
            let map = core::ptr::with_exposed_provenance::<Range>(address(info.memory_map));
            let entries = usize::try_from(info.memory_map_entries).unwrap_or(0);
            (text(info.command_line), core::slice::from_raw_parts(map, entries))
        };
        let ram = || map.iter().filter(|range| range.kind == RAM);
        let mut boot = Self {
            command_line,
            ram_bytes: ram().map(|range| range.len).sum(),
            ram_end: ram().map(|range| range.start + range.len).max().unwrap_or(0),
            low_end: 0,
            rsdp: info.rsdp,
        };
        let low = ram().find(|range| (range.start..range.start + range.len).contains(&0x10_0000));
        boot.low_end = low.map_or(0, |range| range.start + range.len);
        boot
    }
}

/// A copy of a text: it may lie where misdeeds write.
unsafe fn text(at: u64) -> &'static str {
    static COPY: [AtomicU8; 1024] = [const { AtomicU8::new(0) }; 1024];
    if at == 0 {
        return "";
    }
    // SAFETY: the caller's promise: a terminated text is there.
    let text = unsafe { CStr::from_ptr(core::ptr::with_exposed_provenance(address(at))) };
    let bytes = text.to_bytes();
    for (to, from) in COPY.iter().zip(bytes) {
        to.store(*from, Relaxed);
    }
    let len = bytes.len().min(COPY.len());
    // SAFETY: nobody writes to it from here on.
    let copy = unsafe { core::slice::from_raw_parts((&raw const COPY).cast::<u8>(), len) };
    core::str::from_utf8(copy).unwrap_or("")
}

/// An address as this machine's pointers have it.
pub fn address(at: u64) -> usize {
    usize::try_from(at).unwrap_or(0)
}
