//! What a guest would find, read back as a guest and its processor would read it.

use super::*;
use crate::memory::Perms;
use crate::modes::hvt::fixture::{Ram, image, image_with, patched, ram};
use crate::modes::hvt::{fixture, layout::UNIT};
use crate::vcpu::X86State;
use alloc::vec;
use alloc::vec::Vec;

const RW: Perms = Perms::READ.union(Perms::WRITE);

struct Booted {
    ram: Ram,
    state: X86State,
    layout: Layout,
}

fn attached(mut image: Image) -> Image {
    image.manifest.attach_block(1, 512, None).unwrap();
    image.manifest.attach_net(2, [2, 0, 0, 0, 0, 1], 1500).unwrap();
    image
}

fn boot(lowest: u64, with_ring: bool, offer_ring: bool) -> Booted {
    let image = attached(Image::read(&image()[..], GuestArch::X86_64).unwrap());
    let layout = Layout::new(UNIT, with_ring).unwrap();
    let cmdline = CommandLine::new(["a", "b c"]).unwrap();
    let mut ram = ram(lowest..layout.alloc);
    let boot = Boot {
        image: &image,
        layout: &layout,
        cmdline: &cmdline,
        cycle_frequency: 3_000_000_000,
        offer_ring,
        lowest_gpa: Gpa(lowest),
    };
    let VcpuState::X86(state) = setup(&mut ram.memory, &boot).unwrap();
    Booted { ram, state, layout }
}

fn info(booted: &Booted) -> BootInfo {
    booted.ram.memory.read_obj(Gpa(booted.state.rdi)).unwrap()
}

#[test]
fn boot_information_is_as_the_abi_says() {
    let booted = boot(0, false, true);
    let info = info(&booted);
    assert_eq!((info.mem_size, info.kernel_end), (UNIT, fixture::END));
    assert_eq!(info.cpu_cycle_freq, 3_000_000_000);
    assert_eq!((info.host_features, info.guest_features, info.net_ring), (0, 0, Gpa(0)));
    let mut manifest = vec![0; 8 + 3 * 104];
    booted.ram.memory.read_bytes(info.mft, &mut manifest).unwrap();
    assert_eq!((manifest[0], manifest[4], manifest[8 + 104 + 96]), (1, 3, 1));
    assert_eq!(info.mft.0 % 8, 0);
    let mut cmdline = vec![0xff; 7];
    booted.ram.memory.read_bytes(info.cmdline, &mut cmdline).unwrap();
    assert_eq!(cmdline, b"a b c\0\0");
}

#[test]
fn the_ring_is_offered_only_if_it_is_there_and_wanted() {
    let offer = |with, offer| {
        let booted = boot(0, with, offer);
        let info = info(&booted);
        assert_eq!(info.mem_size, booted.layout.mem_size);
        (info.host_features, info.net_ring)
    };
    assert_eq!(offer(true, true), (FEATURE_RING_IO, Gpa(UNIT)));
    assert_eq!(offer(true, false), (0, Gpa(0)));
    assert_eq!(offer(false, true), (0, Gpa(0)));
}

#[test]
fn registers_are_those_of_64_bit_mode() {
    let Booted { state, .. } = boot(0, true, true);
    assert_eq!((state.rip, state.rdi, state.rsp), (GUEST_MIN_BASE, 0x1_0000, UNIT - 8));
    assert_eq!((state.cr0, state.cr3, state.cr4), (0x8001_0021, 0x2000, 0x620));
    assert_eq!((state.efer, state.rflags, state.gdt), (0x500, 2, (0x1000, 23)));
    assert_eq!((state.cs.selector, state.data.selector, state.tr.selector), (8, 16, 0));
}

#[test]
fn low_memory_is_closed_to_hypercalls() {
    for lowest in [0, 0x1_0000] {
        let booted = boot(lowest, false, false);
        let allowed = |gpa, needs| booted.ram.memory.slice(Gpa(gpa), 1, needs).is_ok();
        for gpa in (0..PRIVATE.end).step_by(0x800) {
            assert!(!allowed(gpa, Perms::READ) && !allowed(gpa, Perms::WRITE), "{gpa:#x}");
        }
        for gpa in [INPUT.start, INPUT.end - 1] {
            assert!(allowed(gpa, Perms::READ) && !allowed(gpa, Perms::WRITE), "{gpa:#x}");
        }
        assert!(allowed(INPUT.end, RW));
    }
}

/// A backend without guest page tables backs nothing below the boot information.
#[test]
fn tables_are_left_out_where_there_is_no_memory() {
    let booted = boot(0x1_0000, true, true);
    assert_eq!(info(&booted).net_ring, Gpa(UNIT));
    assert_eq!(booted.state, boot(0, true, true).state);
}

/// Walks the tables as the processor does: where an address leads, and whether it can be written.
fn walk(memory: &GuestMemory, root: u64, address: u64) -> Option<(u64, bool)> {
    let (mut table, mut writable) = (root, true);
    for level in (0..4u64).rev() {
        let shift = 12 + 9 * level;
        let entry: u64 = memory.read_obj(Gpa(table + (address >> shift & 511) * 8)).unwrap();
        if entry & 1 == 0 {
            return None;
        }
        writable &= entry & 2 != 0;
        let (page, large) = (entry & 0x000f_ffff_ffff_f000, entry & 0x80 != 0);
        if level == 0 || large {
            let offset = address & ((1 << shift) - 1);
            return Some((page | offset, writable));
        }
        table = page;
    }
    None
}

fn tables(bytes: u64) -> Ram {
    let ram = ram(0..0x1_0000);
    let layout = Layout::new(bytes, false).unwrap();
    x86_64::setup(&ram.memory, &layout, Gpa(0), true).unwrap();
    ram
}

#[test]
fn memory_is_mapped_to_itself_and_low_memory_is_not() {
    // Miri needs half a minute for the tables of 4 GiB.
    let largest = if cfg!(miri) { 8 * UNIT } else { 1 << 32 };
    for bytes in [UNIT, 3 * UNIT, largest] {
        let ram = tables(bytes);
        let at = |address| walk(&ram.memory, x86_64::PML4.0, address);
        for address in (0..UNIT).step_by(0x1000).flat_map(|page| [page, page + 0xfff]) {
            let expected = match address {
                0..0x1_0000 => None,
                0x1_0000..0x10_0000 => Some((address, false)),
                _ => Some((address, true)),
            };
            assert_eq!(at(address), expected, "{address:#x}");
        }
        for page in (UNIT..1 << 32).step_by(if cfg!(miri) { 0x1000_0000 } else { 0x20_0000 }) {
            for address in [page, page + UNIT - 1] {
                assert_eq!(at(address), (address < bytes).then_some((address, true)));
            }
        }
        for address in [1 << 32, 1 << 39, 1 << 47] {
            assert_eq!(at(address), None);
        }
    }
}

/// The tables end where their last one ends, and the descriptors are read back.
#[test]
fn nothing_else_of_low_memory_is_written() {
    let ram = tables(1 << 32);
    for page in (0..0x1_0000u64).step_by(0x1000) {
        let mut bytes = vec![0; 0x1000];
        ram.memory.read_bytes(Gpa(page), &mut bytes).unwrap();
        let used = bytes.iter().any(|byte| *byte != 0);
        assert_eq!(used, (0x1000..0x9000).contains(&page), "{page:#x}");
    }
    let descriptors: [u64; 4] = ram.memory.read_obj(x86_64::GDT).unwrap();
    assert_eq!(descriptors, [0, 0x00af_9900_0000_ffff, 0x00cf_9300_0000_ffff, 0]);
}

fn refused(
    change: impl Fn(&mut Boot<'_>),
    memory: core::ops::Range<u64>,
    file: &[u8],
) -> BootError {
    let arch = if file[18] == 183 { GuestArch::Aarch64 } else { GuestArch::X86_64 };
    let image = Image::read(file, arch).unwrap();
    let layout = Layout::new(UNIT, false).unwrap();
    let cmdline = CommandLine::default();
    let mut boot = Boot {
        image: &image,
        layout: &layout,
        cmdline: &cmdline,
        cycle_frequency: 1,
        offer_ring: false,
        lowest_gpa: Gpa(0),
    };
    change(&mut boot);
    setup(&mut ram(memory).memory, &boot).unwrap_err()
}

#[test]
fn what_cannot_be_booted_says_why() {
    let whole = 0..UNIT;
    let no_clock = refused(|boot| boot.cycle_frequency = 0, whole.clone(), &image());
    assert_eq!(no_clock, BootError::NoCycleFrequency);
    let arm = patched(image(), fixture::ehdr::MACHINE, &[183]);
    assert_eq!(refused(|_| {}, whole.clone(), &arm), BootError::Arch("aarch64"));
    // No memory at the tables, at the boot information, up to where images start.
    for memory in [0x2000..UNIT, 0x1_8000..UNIT, 0..0x8_0000] {
        assert!(matches!(refused(|_| {}, memory, &image()), BootError::Memory(_)));
    }
}

/// The largest manifest and the longest command line fit below where images start.
#[test]
fn the_largest_input_fits() {
    let names: Vec<_> = (0..63).map(|i| alloc::format!("net{i}")).collect();
    let devices: Vec<_> = names.iter().map(|name| (name.as_str(), 2)).collect();
    let image = Image::read(&image_with(&devices)[..], GuestArch::X86_64).unwrap();
    let layout = Layout::new(UNIT, false).unwrap();
    let cmdline = CommandLine::new([vec![b'x'; CMDLINE_SIZE - 1]]).unwrap();
    let mut ram = ram(0..UNIT);
    let (cycle_frequency, lowest_gpa, offer_ring) = (1, Gpa(0), false);
    let (image, layout, cmdline) = (&image, &layout, &cmdline);
    let boot = Boot { image, layout, cmdline, cycle_frequency, offer_ring, lowest_gpa };
    setup(&mut ram.memory, &boot).unwrap();
    let info: BootInfo = ram.memory.read_obj(Gpa(INPUT.start)).unwrap();
    let last = Gpa(info.cmdline.0 + CMDLINE_SIZE as u64 - 2);
    assert_eq!(ram.memory.read_obj::<[u8; 2]>(last), Ok([b'x', 0]));
}
