//! Memory that devices see: frames, at their physical addresses.

use crate::memory::{self, space};
use core::ptr::NonNull;
use host_baremetal::paging::Rights;
use virtio_drivers::{BufferDirection, Hal, PhysAddr};

/// This machine's memory, for its devices.
pub struct Dma;

/// The order of the frame that holds so many pages.
fn order(pages: usize) -> u8 {
    u8::try_from(pages.next_power_of_two().trailing_zeros()).unwrap_or(u8::MAX)
}

// SAFETY: frames are zeroed, contiguous and nobody else's; registers are mapped once each.
unsafe impl Hal for Dma {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        // 0 is what the crate takes for a failure.
        let at = memory::alloc(order(pages)).unwrap_or(0);
        (at, NonNull::new(memory::window(at)).unwrap_or(NonNull::dangling()))
    }

    unsafe fn dma_dealloc(at: PhysAddr, _: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: from `dma_alloc`, with as many pages.
        unsafe { memory::release(at, order(pages)) };
        0
    }

    unsafe fn mmio_phys_to_virt(at: PhysAddr, size: usize) -> NonNull<u8> {
        let mapped = space::map_device(at, size as u64, Rights::DEVICE);
        mapped.and_then(NonNull::new).unwrap_or_else(|| panic!("no memory to map a device"))
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        // Heap, frames and stacks are contiguous: each lies within a frame, or within frames that
        // follow each other. The device changes what is there: the compiler has to know that the
        // address leaves the program, or takes a buffer of a function's own for unchanged.
        let at = buffer.cast::<u8>().as_ptr().expose_provenance() as u64;
        space::physical(at).unwrap_or_else(|| panic!("a device's buffer is not mapped"))
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}
