//! Why KVM came back, read from the `kvm_run` page that it shares with us, and the answers that
//! go there (KVM API §5, "The kvm_run structure").
//!
//! The kernel writes the page during `KVM_RUN` only, and no guest can reach it.

#![allow(unsafe_code)]

use kvm_bindings::*;

/// Why `KVM_RUN` returned.
pub(crate) enum Reason {
    Io(Pio),
    MmioRead { gpa: u64, size: u8 },
    MmioWrite { gpa: u64, size: u8, value: u64 },
    Halt,
    Shutdown,
    FailEntry { reason: u64 },
    Internal { suberror: u32 },
    MemoryFault { gpa: u64 },
    Debug(kvm_debug_exit_arch),
    ReadMsr { index: u32 },
    WriteMsr { index: u32, value: u64 },
    InterruptWindow,
    EndOfInterrupt { vector: u8 },
    Other(u32),
}

/// One port access, or the elements of one string access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pio {
    pub(crate) port: u16,
    /// Bytes of one element: 1, 2 or 4.
    pub(crate) size: u8,
    pub(crate) write: bool,
    /// Elements that are left, this one included.
    pub(crate) left: u32,
    /// Where this element is in the page.
    offset: usize,
}

impl Pio {
    /// The element after this one.
    pub(crate) fn next(self) -> Option<Self> {
        let left = self.left.checked_sub(1).filter(|&left| left > 0)?;
        Some(Self { left, offset: self.offset + usize::from(self.size), ..self })
    }

    /// `None` where the kernel's description does not fit a page of `page_len` bytes.
    fn new(io: &kvm_run__bindgen_ty_1__bindgen_ty_4, page_len: usize) -> Option<Self> {
        let offset = usize::try_from(io.data_offset).ok()?;
        let len = usize::from(io.size).checked_mul(usize::try_from(io.count).ok()?)?;
        let fits = offset.checked_add(len)? <= page_len;
        let write = u32::from(io.direction) == KVM_EXIT_IO_OUT;
        let sound = fits && matches!(io.size, 1 | 2 | 4) && io.count > 0;
        sound.then_some(Self { port: io.port, size: io.size, write, left: io.count, offset })
    }
}

/// Reads why `KVM_RUN` returned. `page_len` is `KVM_GET_VCPU_MMAP_SIZE`.
pub(crate) fn reason(run: &kvm_run, page_len: usize) -> Reason {
    let detail = &run.__bindgen_anon_1;
    // SAFETY: every arm reads the member that the kernel has filled for this `exit_reason`; all
    // of them are plain integers, for which any bits are a value.
    unsafe {
        match run.exit_reason {
            KVM_EXIT_IO => Pio::new(&detail.io, page_len).map_or(Reason::Other(2), Reason::Io),
            KVM_EXIT_MMIO => mmio(&detail.mmio),
            KVM_EXIT_HLT => Reason::Halt,
            KVM_EXIT_SHUTDOWN => Reason::Shutdown,
            KVM_EXIT_FAIL_ENTRY => {
                Reason::FailEntry { reason: detail.fail_entry.hardware_entry_failure_reason }
            }
            KVM_EXIT_INTERNAL_ERROR => Reason::Internal { suberror: detail.internal.suberror },
            KVM_EXIT_MEMORY_FAULT => Reason::MemoryFault { gpa: detail.memory_fault.gpa },
            KVM_EXIT_DEBUG => Reason::Debug(detail.debug.arch),
            KVM_EXIT_X86_RDMSR => Reason::ReadMsr { index: detail.msr.index },
            KVM_EXIT_X86_WRMSR => {
                Reason::WriteMsr { index: detail.msr.index, value: detail.msr.data }
            }
            KVM_EXIT_IRQ_WINDOW_OPEN => Reason::InterruptWindow,
            KVM_EXIT_IOAPIC_EOI => Reason::EndOfInterrupt { vector: detail.eoi.vector },
            other => Reason::Other(other),
        }
    }
}

fn mmio(access: &kvm_run__bindgen_ty_1__bindgen_ty_6) -> Reason {
    let gpa = access.phys_addr;
    let size = u8::try_from(access.len.min(8)).unwrap_or(8);
    if access.is_write == 0 {
        return Reason::MmioRead { gpa, size };
    }
    let mut bytes = [0; 8];
    bytes[..usize::from(size)].copy_from_slice(&access.data[..usize::from(size)]);
    Reason::MmioWrite { gpa, size, value: u64::from_le_bytes(bytes) }
}

/// The element that a guest writes to a port.
pub(crate) fn port_value(run: &mut kvm_run, io: &Pio) -> u32 {
    let mut bytes = [0u8; 4];
    // SAFETY: `Pio::new` has checked that the element is inside of the mapped page; 4 bytes hold
    // every size.
    unsafe { data(run, io).copy_to_nonoverlapping(bytes.as_mut_ptr(), usize::from(io.size)) };
    u32::from_le_bytes(bytes)
}

/// Answers the element that a guest reads from a port.
pub(crate) fn answer_port(run: &mut kvm_run, io: &Pio, value: u64) {
    let bytes = value.to_le_bytes();
    // SAFETY: as in `port_value`, and the page is mapped for writing.
    unsafe { data(run, io).copy_from_nonoverlapping(bytes.as_ptr(), usize::from(io.size)) };
}

/// Where an element is. The page is one mapping of which `kvm_run` is only the start, and it was
/// made outside of Rust: so its address is taken, not the reference's range.
fn data(run: &mut kvm_run, io: &Pio) -> *mut u8 {
    let start = std::ptr::from_mut(run).expose_provenance();
    std::ptr::with_exposed_provenance_mut(start + io.offset)
}

/// Answers a read of device memory.
pub(crate) fn answer_mmio(run: &mut kvm_run, value: u64) {
    run.__bindgen_anon_1.mmio.data = value.to_le_bytes();
}

/// Answers an access to a model-specific register; `None` is a general protection fault.
pub(crate) fn answer_msr(run: &mut kvm_run, value: Option<u64>) {
    // SAFETY: plain integers, and the kernel has filled this member for this exit.
    let msr = unsafe { &mut run.__bindgen_anon_1.msr };
    msr.error = u8::from(value.is_none());
    msr.data = value.unwrap_or(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page as the kernel lays it out: the structure, then the data of port accesses.
    #[repr(C, align(4096))]
    struct Page {
        run: kvm_run,
        data: [u8; 64],
    }

    fn page(io: kvm_run__bindgen_ty_1__bindgen_ty_4) -> Box<Page> {
        let mut page = Box::new(Page { run: kvm_run::default(), data: [0; 64] });
        page.run.exit_reason = KVM_EXIT_IO;
        page.run.__bindgen_anon_1.io = io;
        page
    }

    fn pio(direction: u32, size: u8, count: u32) -> kvm_run__bindgen_ty_1__bindgen_ty_4 {
        kvm_run__bindgen_ty_1__bindgen_ty_4 {
            direction: u8::try_from(direction).unwrap(),
            size,
            port: 0x500,
            count,
            data_offset: std::mem::offset_of!(Page, data) as u64,
        }
    }

    #[test]
    fn string_output_is_one_access_per_element() {
        let mut page = page(pio(KVM_EXIT_IO_OUT, 2, 3));
        let Reason::Io(mut io) = reason(&page.run, size_of::<Page>()) else { panic!("no access") };
        page.data[..6].copy_from_slice(&[1, 2, 3, 4, 5, 6]);
        let base = std::ptr::from_mut(&mut *page).expose_provenance();
        assert_eq!(base % 4096, 0);
        let mut seen = vec![port_value(&mut page.run, &io)];
        while let Some(next) = io.next() {
            io = next;
            seen.push(port_value(&mut page.run, &io));
        }
        assert_eq!(seen, [0x0201, 0x0403, 0x0605]);
    }

    #[test]
    fn an_answer_fills_its_element_only() {
        let mut page = page(pio(KVM_EXIT_IO_IN, 2, 2));
        let Reason::Io(io) = reason(&page.run, size_of::<Page>()) else { panic!("no access") };
        std::ptr::from_mut(&mut *page).expose_provenance();
        page.data[..4].fill(0xee);
        answer_port(&mut page.run, &io, u64::MAX << 8);
        assert_eq!(page.data[..4], [0x00, 0xff, 0xee, 0xee]);
    }

    #[test]
    fn nonsense_from_the_kernel_is_not_followed() {
        for (size, count) in [(3, 1), (0, 1), (4, 0), (4, u32::MAX), (8, 1)] {
            let page = page(pio(KVM_EXIT_IO_OUT, size, count));
            assert!(matches!(reason(&page.run, size_of::<Page>()), Reason::Other(_)));
        }
    }

    #[test]
    fn device_memory_is_read_by_its_width() {
        let mut run = kvm_run { exit_reason: KVM_EXIT_MMIO, ..Default::default() };
        run.__bindgen_anon_1.mmio = kvm_run__bindgen_ty_1__bindgen_ty_6 {
            phys_addr: 0x1_0000_0000,
            data: [1, 2, 3, 4, 5, 6, 7, 8],
            len: 2,
            is_write: 1,
        };
        let read = reason(&run, size_of::<kvm_run>());
        assert!(matches!(read, Reason::MmioWrite { size: 2, value: 0x0201, .. }));
    }
}
