//! An image from a stranger: read, loaded and booted, or refused; and what is accepted is sound.

#![no_main]

use fuzz::ram::Ram;
use hypervisor::memory::{Gpa, Perms};
use hypervisor::modes::hvt::arch::GuestArch;
use hypervisor::modes::hvt::boot::{self, Boot};
use hypervisor::modes::hvt::cmdline::CommandLine;
use hypervisor::modes::hvt::image::Image;
use hypervisor::modes::hvt::layout::{Layout, UNIT};
use hypervisor::modes::hvt::manifest::DeviceKind;
use hypervisor::modes::hvt::solo5_abi::GUEST_MIN_BASE;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    let Ok(mut image) = Image::read(file, GuestArch::X86_64) else { return };
    check(file, &image);
    attach(&mut image);
    let layout = Layout::new(UNIT, true).expect("one unit");
    if image.check_fits(layout.mem_size).is_ok() {
        run(file, &image, &layout);
    }
});

fn check(file: &[u8], image: &Image) {
    let mut end = GUEST_MIN_BASE;
    for segment in &image.segments {
        let range = &segment.range;
        assert!(end <= range.start && range.start < range.end && range.end <= 1 << 32);
        assert!(range.start % 0x1000 == 0 && range.end % 0x1000 == 0);
        assert!(range.start <= segment.vaddr && segment.vaddr + segment.file_size <= range.end);
        let file_end = segment.file_offset.saturating_add(segment.file_size);
        assert!(segment.file_size == 0 || file_end <= file.len() as u64);
        assert!(!segment.perms.contains(Perms::WRITE | Perms::EXEC));
        end = range.end;
    }
    assert_eq!(image.end, Gpa(end));
    assert!(
        image.protections().any(|(range, perms)| {
            range.contains(&image.entry.0) && perms.contains(Perms::EXEC)
        })
    );
}

fn attach(image: &mut Image) {
    let devices: Vec<_> = image.manifest.devices().map(|(i, device)| (i, device.kind)).collect();
    for (index, kind) in devices {
        match kind {
            DeviceKind::Block => {
                image.manifest.attach_block(index, 512, None).expect("a block device");
            }
            DeviceKind::Net => {
                image.manifest.attach_net(index, [2; 6], 1500).expect("a network");
            }
        }
    }
    assert_eq!(image.manifest.unattached().count(), 0);
}

fn run(file: &[u8], image: &Image, layout: &Layout) {
    let mut ram = Ram::new(0..layout.alloc);
    image.load(file, &ram.memory, layout.mem_size).expect("checked and fits");
    for (range, perms) in image.protections() {
        ram.memory.protect(range, perms).expect("inside of the memory");
    }
    let cmdline = CommandLine::new(["a", "b"]).expect("short");
    let boot = Boot {
        image,
        layout,
        cmdline: &cmdline,
        cycle_frequency: 1,
        offer_ring: true,
        lowest_gpa: Gpa(0),
    };
    boot::setup(&mut ram.memory, &boot).expect("everything is there");
}
