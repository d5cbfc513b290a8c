//! A kernel from a stranger: started or refused; and what is started begins in what was loaded.

#![no_main]

use fuzz::ram::Ram;
use hypervisor::host::Blob;
use hypervisor::memory::{Gpa, GuestSlice};
use hypervisor::modes::type1::boot::map::without_firmware;
use hypervisor::modes::type1::boot::{Given, start};
use libfuzzer_sys::fuzz_target;

const END: u64 = 4 << 20;

/// A file that a host reads in small parts.
struct File<'a>(&'a [u8]);

impl Blob for File<'_> {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(
        &self,
        offset: u64,
        to: GuestSlice<'_>,
    ) -> Result<usize, hypervisor::host::HostError> {
        let part = to.part(0, to.len().min(777)).expect("a part of it");
        self.0.read_at(offset, part)
    }
}

fuzz_target!(|file: &[u8]| {
    let cmdline = b"console=ttyS0";
    let ram = Ram::new(0..END);
    #[allow(clippy::single_range_in_vec_init)]
    let ranges = [0..END];
    let map = without_firmware(&ranges, &[]);
    let ramdisk = File(&[0x5a; 3000]);
    let (name, ramdisk) = (b"kernel", Some(&ramdisk as &dyn Blob));
    let rsdp = Gpa(0xe_0000);
    let given = Given { ram: &ranges, name, cmdline, ramdisk, modules: &[], rsdp };
    match start(&File(file), &ram.memory, &given, &map) {
        Ok(state) => {
            let low = state.rax == 0x2bad_b002 && (0x500..0x9_0000).contains(&state.rip);
            assert!(low || (1 << 20..END).contains(&state.rip), "starts at {:#x}", state.rip);
            // Nothing is written where firmware and tables are.
            assert!(ram.is_filled(0xa_0000..0x10_0000, 0));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
