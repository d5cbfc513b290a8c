//! The global allocator over all memory between the image and the end.

#![allow(unsafe_code)]

use crate::raw;
use spinning_top::RawSpinlock;
use talc::TalcLock;
use talc::source::Manual;

#[global_allocator]
static HEAP: TalcLock<RawSpinlock, Manual> = TalcLock::new(Manual);

unsafe extern "C" {
    /// First address after `.bss`, from the linker script.
    static __image_end: u8;
}

/// Gives the allocator its memory. Call once, before the first allocation.
pub(crate) fn init() {
    let info = raw::boot_info();
    let image_end = (&raw const __image_end).addr();
    let start = image_end.max(info.kernel_end).next_multiple_of(4096);
    let size = info.mem_size.saturating_sub(start);
    let memory = core::ptr::with_exposed_provenance_mut(start);
    // SAFETY: nobody else uses these bytes: the image ends below, our stack is inside the image,
    // and the tender keeps to its own pages outside this range.
    let claimed = unsafe { HEAP.lock().claim(memory, size) };
    if claimed.is_none() {
        crate::abort(format_args!(
            "not enough memory: {size} bytes after the image, give the tender a larger --mem"
        ));
    }
}
