//! Kernels made by hand, whole and broken, and what a guest would find in its memory.

#![allow(clippy::single_range_in_vec_init, reason = "a list of one range is meant")]

use super::map::{Row, without_firmware};
use super::*;
use crate::config::Type1Config;
use crate::modes::hvt::fixture::{Ram, ram};
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const MEMORY: u64 = 8 * MIB;

/// A bzImage with one setup sector and 64 KiB of code that is all 0x90.
fn bzimage() -> Vec<u8> {
    let mut file = vec![0; 1024 + 0x1_0000];
    file[1024..].fill(0x90);
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]);
    put(0x1f4, &0x1000u32.to_le_bytes());
    put(0x1fe, &[0x55, 0xaa]);
    put(0x202, b"HdrS");
    put(0x206, &0x020fu16.to_le_bytes());
    put(0x211, &[1]);
    put(0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(0x230, &0x20_0000u32.to_le_bytes());
    put(0x234, &[1]);
    put(0x236, &0b11u16.to_le_bytes());
    put(0x238, &2047u32.to_le_bytes());
    put(0x258, &(4 * MIB).to_le_bytes());
    put(0x260, &0x2_0000u32.to_le_bytes());
    file
}

/// An ELF kernel of either class: 16 bytes of code at 2 MiB, 4 KiB in memory, entered at its
/// second byte.
fn elf(wide: bool) -> Vec<u8> {
    let mut note = Vec::new();
    note.extend_from_slice(&[4, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0]);
    note.extend_from_slice(b"GNU\0\x01\x02\x03\x04");
    note.extend_from_slice(&[4, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0, 0]);
    note.extend_from_slice(b"Xen\0\x01\0\x20\0");
    let mut file = vec![0; 0x200];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &[0x7f, b'E', b'L', b'F', if wide { 2 } else { 1 }, 1, 1]);
    put(16, &[2, 0, if wide { 62 } else { 3 }, 0, 1]);
    put(0x100, &note);
    put(0x180, b"the kernel code.");
    let segments = [(1u64, 0x180u64, 0x20_0000u64, 16u64, 0x1000u64), (4, 0x100, 0, 40, 40)];
    let n4 = |n: u64| u32::try_from(n).unwrap().to_le_bytes();
    if wide {
        put(32, &64u64.to_le_bytes());
        put(54, &[56, 0, 2, 0]);
        for (i, (kind, offset, paddr, filesz, memsz)) in segments.into_iter().enumerate() {
            let at = 64 + i * 56;
            put(at, &n4(kind));
            for (j, n) in
                [offset, 0xffff_8000_0000_0000, paddr, filesz, memsz, 4].iter().enumerate()
            {
                put(at + 8 + j * 8, &n.to_le_bytes());
            }
        }
    } else {
        put(28, &52u32.to_le_bytes());
        put(42, &[32, 0, 2, 0]);
        for (i, (kind, offset, paddr, filesz, memsz)) in segments.into_iter().enumerate() {
            let fields = [kind, offset, 0xc000_0000, paddr, filesz, memsz, 5, 4];
            for (j, n) in fields.iter().enumerate() {
                put(52 + i * 32 + j * 4, &n4(*n));
            }
        }
    }
    file
}

struct Started {
    ram: Ram,
    state: X86State,
}

fn map(memory: u64) -> Vec<Row> {
    without_firmware(&[0..memory], &[])
}

fn try_start(
    kernel: &[u8],
    memory: u64,
    cmdline: &[u8],
    ramdisk: Option<&dyn Blob>,
) -> Result<Started, StartError> {
    start_with(kernel, memory, cmdline, ramdisk, &[])
}

fn start_with(
    kernel: &[u8],
    memory: u64,
    cmdline: &[u8],
    ramdisk: Option<&dyn Blob>,
    modules: &[Module<'_>],
) -> Result<Started, StartError> {
    let ram = ram(0..memory);
    let given = Given {
        ram: &[0..memory],
        name: b"/kernel",
        cmdline,
        ramdisk,
        modules,
        rsdp: Gpa(0xe_0000),
    };
    let kernel: Box<dyn Blob> = Box::new(File(kernel.to_vec()));
    let state = start(&*kernel, &ram.memory, &given, &map(memory))?;
    Ok(Started { ram, state })
}

/// A file that is read in parts of 1,000 bytes at most, as a host may do.
struct File(Vec<u8>);

impl Blob for File {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(
        &self,
        offset: u64,
        to: crate::memory::GuestSlice<'_>,
    ) -> Result<usize, crate::host::HostError> {
        let part = to.part(0, to.len().min(1000)).unwrap();
        self.0[..].read_at(offset, part)
    }
}

fn bytes<const N: usize>(started: &Started, at: u64) -> [u8; N] {
    let mut bytes = [0; N];
    started.ram.memory.read_bytes(Gpa(at), &mut bytes).unwrap();
    bytes
}

fn long(started: &Started, at: u64) -> u32 {
    u32::from_le_bytes(bytes(started, at))
}

fn quad(started: &Started, at: u64) -> u64 {
    u64::from_le_bytes(bytes(started, at))
}

#[test]
fn linux_starts_in_64_bit_mode_with_its_parameters() {
    let ramdisk = File(vec![0x5a; 5000]);
    let started = try_start(&bzimage(), MEMORY, b"console=ttyS0", Some(&ramdisk)).unwrap();
    let state = started.state;
    assert_eq!((state.rip, state.rsi, state.rflags), (4 * MIB + 0x200, 0x7000, 2));
    assert_eq!((state.cr0, state.cr4, state.efer), (0x8001_0031, 0x20, 0x500));
    assert_eq!((state.cs.selector, state.data.selector), (0x10, 0x18));
    assert_eq!(bytes(&started, state.gdt.0 + 0x10), 0x00af_9b00_0000_ffffu64.to_le_bytes());
    assert_eq!(bytes(&started, state.gdt.0 + 0x18), 0x00cf_9300_0000_ffffu64.to_le_bytes());
    assert_eq!(bytes::<4>(&started, 4 * MIB + 0xfffc), [0x90; 4]);
    let page = state.rsi;
    assert_eq!(bytes(&started, page + 0x202), *b"HdrS");
    assert_eq!(bytes(&started, page + 0x210), [0xff]);
    assert_eq!(quad(&started, page + 0x70), 0xe_0000);
    assert_eq!(bytes(&started, long(&started, page + 0x228).into()), *b"console=ttyS0\0");
    let (at, size) = (long(&started, page + 0x218), long(&started, page + 0x21c));
    assert_eq!((u64::from(at), size), (MEMORY - 0x2000, 5000));
    assert_eq!(bytes::<5000>(&started, at.into()), [0x5a; 5000]);
    assert_eq!(bytes::<1>(&started, u64::from(at) + 5000), [0]);
    assert_eq!(bytes(&started, page + 0x1e8), [3]);
    let row = |i: u64| {
        let at = page + 0x2d0 + i * 20;
        (quad(&started, at), quad(&started, at + 8), long(&started, at + 16))
    };
    assert_eq!(row(0), (0, 0x9_fc00, 1));
    assert_eq!(row(1), (0xe_0000, 0x2_0000, 2));
    assert_eq!(row(2), (MIB, MEMORY - MIB, 1));
}

/// A walk of the tables as a processor would do it.
#[test]
fn the_first_4_gib_are_mapped_to_themselves() {
    let started = try_start(&bzimage(), MEMORY, b"", None).unwrap();
    for address in [0, 0x12_3456, MIB * 1024 + 5, 0xffff_ffff] {
        let mut table = started.state.cr3;
        for shift in [39, 30, 21] {
            let entry = quad(&started, (table & !0xfff) + (address >> shift & 0x1ff) * 8);
            assert_eq!(entry & 3, 3, "{address:#x}");
            assert_eq!(entry >> 7 & 1, u64::from(shift == 21));
            table = entry;
        }
        assert_eq!((table & !0x1f_ffff) | (address & 0x1f_ffff), address);
    }
}

#[test]
fn linux_goes_lower_where_its_favourite_place_is_no_ram() {
    let started = try_start(&bzimage(), 3 * MIB, b"", None).unwrap();
    assert_eq!(started.state.rip, 2 * MIB + 0x200);
    let mut fixed = bzimage();
    fixed[0x234] = 0;
    let error = try_start(&fixed, 3 * MIB, b"", None).err().unwrap();
    assert!(matches!(error, StartError::KernelTooLarge { .. }), "{error}");
}

#[test]
fn pvh_starts_in_protected_mode_with_its_start_info() {
    for wide in [false, true] {
        let ramdisk = File(vec![0x5a; 5000]);
        let started = try_start(&elf(wide), MEMORY, b"quiet", Some(&ramdisk)).unwrap();
        let state = started.state;
        assert_eq!((state.rip, state.rflags, state.cr0), (0x20_0001, 2, 0x11));
        assert_eq!((state.cr3, state.cr4, state.efer), (0, 0, 0));
        assert_eq!(bytes(&started, state.gdt.0 + 0x10), 0x00cf_9b00_0000_ffffu64.to_le_bytes());
        assert_eq!(bytes(&started, 0x20_0000), *b"the kernel code.");
        let info = state.rbx;
        assert_eq!(long(&started, info), 0x336e_c578);
        assert_eq!((long(&started, info + 4), long(&started, info + 12)), (1, 1));
        let module = quad(&started, info + 16);
        assert_eq!((quad(&started, module), quad(&started, module + 8)), (MEMORY - 0x2000, 5000));
        assert_eq!(bytes(&started, quad(&started, info + 24)), *b"quiet\0");
        assert_eq!(quad(&started, info + 32), 0xe_0000);
        let (map, rows) = (quad(&started, info + 40), long(&started, info + 48));
        assert_eq!(rows, 3);
        assert_eq!(quad(&started, map + 2 * 24 + 8), MEMORY - MIB);
        assert_eq!(long(&started, map + 2 * 24 + 16), 1);
    }
}

/// Address, size and text of each module, as a multiboot or a PVH kernel finds them.
fn modules_of(started: &Started, pvh: bool) -> Vec<(u64, u64, u64)> {
    let info = started.state.rbx;
    if pvh {
        let (count, list) = (long(started, info + 12), quad(started, info + 16));
        let field = |i: u32, at| quad(started, list + u64::from(i) * 32 + at);
        return (0..count).map(|i| (field(i, 0), field(i, 8), field(i, 16))).collect();
    }
    let (count, list) = (long(started, info + 20), u64::from(long(started, info + 24)));
    let field = |i: u32, at| u64::from(long(started, list + u64::from(i) * 16 + at));
    (0..count).map(|i| (field(i, 0), field(i, 4) - field(i, 0), field(i, 8))).collect()
}

#[test]
fn multiboot_and_pvh_kernels_have_modules_with_texts() {
    let files = [File(vec![0x5a; 5000]), File(vec![0x11; 4096]), File(Vec::new())];
    let [ramdisk, linux, empty] = &files;
    let mut modules =
        vec![Module { file: linux, text: b"root=/dev/vda" }, Module { file: empty, text: b"" }];
    // As many as a description can have.
    modules.resize(Type1Config::MAX_MODULES, Module { file: linux, text: b"more" });
    for (pvh, kernel) in [(true, elf(false)), (false, multiboot_elf())] {
        let started = start_with(&kernel, MEMORY, b"quiet", Some(ramdisk), &modules).unwrap();
        let found = modules_of(&started, pvh);
        assert_eq!(found.len(), 1 + Type1Config::MAX_MODULES);
        assert_eq!([found[0].1, found[1].1, found[2].1], [5000, 4096, 0]);
        assert_eq!(bytes(&started, found[1].0), [0x11; 4096]);
        assert_eq!(bytes(&started, found[1].2), *b"root=/dev/vda\0");
        assert_eq!(bytes(&started, found[16].2), *b"more\0");
        assert!(found.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0));
        assert!(found.iter().all(|module| module.0 % 4096 == 0 && module.0 + module.1 <= MEMORY));
    }
}

#[test]
fn modules_have_limits() {
    let refused = |kernel: &[u8], file: &File, text: &[u8]| {
        let modules = [Module { file, text }];
        start_with(kernel, MEMORY, b"", None, &modules).err().unwrap().to_string()
    };
    let (small, large) = (File(vec![1; 10]), File(vec![1; 8 << 20]));
    assert!(refused(&bzimage(), &small, b"").contains("write `initrd`"));
    for kernel in [elf(false), multiboot_elf()] {
        assert!(refused(&kernel, &large, b"").contains("the 1 modules"));
        assert!(refused(&kernel, &small, b"a\0b").contains("zero byte"));
        assert!(refused(&kernel, &small, &[b'x'; 0x1_0000]).contains("65536 bytes"));
    }
}

fn refusal(mut file: Vec<u8>, at: usize, with: &[u8]) -> String {
    file[at..at + with.len()].copy_from_slice(with);
    try_start(&file, MEMORY, b"", None).err().unwrap().to_string()
}

#[test]
fn every_flaw_of_a_bzimage_has_its_words() {
    let refusal = |at, with: &[u8]| refusal(bzimage(), at, with);
    let flaws = [
        (refusal(0x1fe, &[0]), "neither a bzImage nor an ELF"),
        (refusal(0x202, b"h"), "neither a bzImage nor an ELF"),
        (refusal(0x206, &[0x0b]), "boot protocol is 2.11"),
        (refusal(0x211, &[0]), "zImage"),
        (refusal(0x236, &[2]), "no 64-bit entry point"),
        (refusal(0x230, &[1]), "kernel_alignment is 0x200001"),
        (refusal(0x230, &[0, 0, 0, 0x80]), "kernel_alignment is 0x80000000"),
        (refusal(0x260, &[0, 0, 0]), "init_size is 0x0"),
        (refusal(0x260, &[0, 0, 0, 0x80]), "init_size is 0x80000000"),
        (refusal(0x1f1, &[0xff]), "no protected-mode code behind 255 setup sectors"),
        (refusal(0x1f4, &[0, 0, 0, 0]), "no protected-mode code behind 1"),
        (refusal(0x1f4, &[0xff, 0xff, 0xff, 0xff]), "beyond the end of the file"),
        (refusal(0x260, &[0, 0, 0, 8]), "give the VM more memory"),
        (try_start(&bzimage()[..0x210], MEMORY, b"", None).err().unwrap().to_string(), "beyond"),
        (try_start(b"", MEMORY, b"", None).err().unwrap().to_string(), "beyond the end"),
    ];
    for (text, part) in flaws {
        assert!(text.contains(part), "{text} / {part}");
    }
}

#[test]
fn every_flaw_of_an_elf_kernel_has_its_words() {
    let (wide, narrow) = (|at, with: &[u8]| refusal(elf(true), at, with), elf(false));
    let segment = 64;
    let flaws = [
        (wide(4, &[3]), "class is 3"),
        (wide(5, &[2]), "byte order is 2"),
        (wide(16, &[3]), "e_type is 3"),
        (wide(18, &[183]), "e_machine is 183"),
        (wide(54, &[32]), "e_phentsize is 32, not 56"),
        (refusal(narrow, 42, &[56]), "e_phentsize is 56, not 32"),
        (wide(56, &[0]), "0 program headers"),
        (wide(56, &[129]), "129 program headers"),
        (wide(32, &[0xff; 8]), "beyond the end of the file"),
        (wide(0x100 + 28, &[19]), "neither a note XEN_ELFNOTE_PHYS32_ENTRY nor a multiboot"),
        (wide(0x100 + 4, &[0xff; 4]), "phdr[1]: its notes are malformed"),
        (wide(0x100 + 24, &[5]), "phdr[1]: its notes are malformed"),
        (wide(segment + 56 + 32, &[0, 0, 2]), "phdr[1] has 131072 bytes of notes"),
        (wide(0x100 + 36, &[0, 0, 0x40]), "entry point 0x400000"),
        (wide(segment, &[2]), "no segments to load"),
        (wide(segment + 32, &[0, 0x20]), "phdr[0]: p_filesz 0x2000 is larger"),
        (wide(segment + 40, &[0xff; 8]), "wraps around"),
        (wide(segment + 24, &[0, 0, 0x0f]), "phdr[0] is loaded at 0xf0000, below 1 MiB"),
        (wide(segment + 8, &[0xff; 8]), "beyond the end of the file"),
        (wide(segment + 40, &[0, 0, 0, 1]), "give the VM more memory"),
    ];
    for (text, part) in flaws {
        assert!(text.contains(part), "{text} / {part}");
    }
    let mut twice = elf(true);
    twice[56] = 3;
    twice.copy_within(64..120, 176);
    let error = try_start(&twice, MEMORY, b"", None).err().unwrap().to_string();
    assert!(error.contains("segments at 0x200000 and 0x200000 overlap"), "{error}");
}

#[test]
fn ramdisk_and_command_line_have_limits() {
    let huge = File(vec![0; 5 << 20]);
    let error = try_start(&bzimage(), MEMORY, b"", Some(&huge)).err().unwrap();
    assert!(error.to_string().contains("RAM disk of 5242880 bytes"), "{error}");
    // A kernel that cannot reach above 4 MiB + 128 KiB + 16 KiB gets it there or not at all.
    let mut low = bzimage();
    low[0x236] = 1;
    low[0x22c..0x230].copy_from_slice(&0x42_3fffu32.to_le_bytes());
    let small = File(vec![1; 0x3000]);
    let started = try_start(&low, MEMORY, b"", Some(&small)).unwrap();
    assert_eq!(long(&started, 0x7218), 0x42_1000);
    let larger = File(vec![1; 0x5000]);
    assert!(try_start(&low, MEMORY, b"", Some(&larger)).is_err());
    let empty = File(vec![]);
    assert_eq!(long(&try_start(&low, MEMORY, b"", Some(&empty)).unwrap(), 0x721c), 0);
    let error = try_start(&bzimage(), MEMORY, &[b'a'; 2048], None).err().unwrap();
    assert_eq!(error, StartError::CommandLineTooLong(2048, 2047));
    let error = try_start(&bzimage(), MEMORY, b"a\0b", None).err().unwrap();
    assert_eq!(error, StartError::CommandLineZero);
    assert!(matches!(
        try_start(&elf(true), MIB, b"", None),
        Err(StartError::KernelTooLarge { .. })
    ));
    assert!(try_start(&bzimage(), 0x4000, b"", None).is_err());
}

#[test]
fn firmware_is_at_4_gib_and_at_1_mib() {
    use super::firmware::Rom;
    let error = |size| Rom::new(size).unwrap_err().to_string();
    assert!(error(0x8000).contains("32768 bytes"));
    assert!(error(0x1_0001).contains("multiple of 4 KiB") && error(32 << 20).contains("16 MiB"));
    let small = Rom::new(0x1_0000).unwrap();
    assert_eq!((small.high.start, small.low.start), (0xffff_0000, 0xf_0000));
    let rom = Rom::new(0x4_0000).unwrap();
    assert_eq!((rom.high.start, rom.low.start), (0xfffc_0000, 0xe_0000));
    let mut image = vec![0; 0x4_0000];
    image[0x3_fff0..].copy_from_slice(b"reset vector 16b");
    image[..4].copy_from_slice(b"head");
    let (high, low) = (ram(rom.high.clone()), ram(0..MIB));
    // Two blocks, as a machine has them.
    let mut memory = high.memory.clone();
    low.memory.blocks().iter().for_each(|block| memory.add(block.clone()).unwrap());
    rom.load(&File(image), &memory).unwrap();
    let text = |at| memory.read_obj::<[u8; 16]>(Gpa(at)).unwrap();
    assert_eq!((text(0xf_fff0), text(0xffff_fff0)), (*b"reset vector 16b", *b"reset vector 16b"));
    assert_eq!(&text(0xfffc_0000)[..4], b"head");
    assert!(rom.load(&File(vec![0; 0x2_0000]), &memory).is_err());
}

/// A multiboot header with these flags.
fn multiboot_header(flags: u32) -> [u8; 12] {
    let words = [0x1bad_b002, flags, 0u32.wrapping_sub(0x1bad_b002).wrapping_sub(flags)];
    let mut bytes = [0; 12];
    bytes.chunks_mut(4).zip(words).for_each(|(to, word)| to.copy_from_slice(&word.to_le_bytes()));
    bytes
}

/// The 32-bit ELF kernel without its note, entered by its virtual address; the header is behind
/// the code.
fn multiboot_elf() -> Vec<u8> {
    let mut file = elf(false);
    file[0x100..0x148].fill(0);
    file[24..28].copy_from_slice(&0xc000_0004u32.to_le_bytes());
    file[0x190..0x19c].copy_from_slice(&multiboot_header(3));
    file
}

/// 64 bytes of anything for 0x8000, the header at 0x8004, 0x100 bytes in memory.
fn multiboot_flat() -> Vec<u8> {
    let mut file = vec![0x90; 0x48];
    file[0xc..0x18].copy_from_slice(&multiboot_header(1 << 16));
    for (i, word) in [0x8004u32, 0x8000, 0x8040, 0x8100, 0x8020].into_iter().enumerate() {
        file[0x18 + i * 4..0x1c + i * 4].copy_from_slice(&word.to_le_bytes());
    }
    file
}

#[test]
fn multiboot_starts_in_protected_mode_with_its_information() {
    let ramdisk = File(vec![0x5a; 5000]);
    let started = try_start(&multiboot_elf(), MEMORY, b"one two", Some(&ramdisk)).unwrap();
    let state = started.state;
    assert_eq!((state.rip, state.rax), (0x20_0004, 0x2bad_b002));
    assert_eq!((state.rflags, state.cr0, state.efer), (2, 0x11, 0));
    assert_eq!(bytes(&started, state.gdt.0 + 0x10), 0x00cf_9b00_0000_ffffu64.to_le_bytes());
    assert_eq!(bytes(&started, 0x20_0000), *b"the kernel code.");
    let info = state.rbx;
    let field = |at| long(&started, info + at);
    assert_eq!((field(0), field(4), field(8)), (0x24d, 639, 7 * 1024));
    assert_eq!(bytes(&started, field(16).into()), *b"/kernel one two\0");
    assert_eq!(field(20), 1);
    let module = u64::from(field(24));
    let (from, to) = (long(&started, module), long(&started, module + 4));
    assert_eq!((u64::from(from), to - from), (MEMORY - 0x2000, 5000));
    assert_eq!(bytes::<5000>(&started, from.into()), [0x5a; 5000]);
    assert_eq!(bytes(&started, long(&started, module + 8).into()), [0]);
    assert_eq!(field(44), 3 * 24);
    let row = u64::from(field(48)) + 2 * 24;
    assert_eq!((long(&started, row), long(&started, row + 20)), (20, 1));
    assert_eq!((quad(&started, row + 4), quad(&started, row + 12)), (MIB, MEMORY - MIB));
    assert_eq!(bytes(&started, field(64).into()), *b"redox-hypervisor\0");
}

#[test]
fn a_multiboot_header_may_say_where_its_kernel_goes() {
    let started = try_start(&multiboot_flat(), MEMORY, b"", None).unwrap();
    assert_eq!(started.state.rip, 0x8020);
    // The file begins 8 bytes before what is loaded.
    assert_eq!(bytes(&started, 0x8004), multiboot_header(1 << 16));
    assert_eq!(bytes(&started, 0x803c), [0x90, 0x90, 0x90, 0x90, 0, 0, 0, 0]);
    assert_eq!(long(&started, started.state.rbx + 20), 0);
    // Without an end of its own it goes to the file's end.
    let mut open = multiboot_flat();
    open[0x20..0x28].fill(0);
    assert_eq!(bytes(&try_start(&open, MEMORY, b"", None).unwrap(), 0x803f), [0x90, 0]);
}

#[test]
fn every_flaw_of_a_multiboot_kernel_has_its_words() {
    let flat = |at, word: u32| refusal(multiboot_flat(), at, &word.to_le_bytes());
    let elf = |at, word: u32| refusal(multiboot_elf(), at, &word.to_le_bytes());
    let mut demanding = multiboot_flat();
    demanding[0xc..0x18].copy_from_slice(&multiboot_header(1 << 16 | 0x28));
    let cut = try_start(&multiboot_flat()[..0x20], MEMORY, b"", None).err().unwrap().to_string();
    let flaws = [
        (flat(0xc, 0), "beyond the end of the file"),
        (refusal(demanding, 0, &[]), "flags demand 0x28"),
        (cut, "the multiboot header, 20 bytes at offset 24"),
        (flat(0x18, 0x8010), "addresses do not fit together: header 0x8010"),
        (flat(0x18, 0x7fff), "addresses do not fit together"),
        (flat(0x20, 0x7fff), "addresses do not fit together"),
        (flat(0x24, 0x8030), "bss to 0x8030"),
        (flat(0x20, 0x8050), "beyond the end of the file"),
        (flat(0x24, 0x9_0001), "segment 0 is at 0x8000 to 0x90001; a kernel may be at 0x500"),
        (flat(0x24, 0xffff_ffff), "segment 0 is at 0x8000 to 0xffffffff"),
        (flat(0x28, 0x8040), "entry point 0x8040"),
        (elf(0x190, 0), "neither a note XEN_ELFNOTE_PHYS32_ENTRY nor a multiboot header"),
        (elf(24, 0xc000_0010), "entry point 0xc0000010"),
        (elf(52, 2), "it has nothing to load"),
        (elf(52 + 12, 0x9_f000), "segment 0 is at 0x9f000"),
        (elf(52 + 16, 0x1001), "segment 0: it is larger in the file"),
        (elf(52 + 20, 0x1000_0000), "give the VM more memory"),
    ];
    for (text, part) in flaws {
        assert!(text.contains(part), "{text} / {part}");
    }
    let huge = vec![b'x'; 0xe000];
    let error = try_start(&multiboot_elf(), MEMORY, &huge, None).err().unwrap();
    assert!(matches!(error, StartError::CommandLineTooLong(0xe008, _)), "{error}");
    let mut twice = multiboot_elf();
    twice.copy_within(52..84, 84);
    let error = try_start(&twice, MEMORY, b"", None).err().unwrap().to_string();
    assert!(error.contains("segments at 0x200000 and 0x200000 overlap"), "{error}");
}

/// Where headers are, so that most changes matter.
fn place() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0x1f0usize..0x26c, 4 => 0usize..0x130, 1 => 0usize..0x400]
}

proptest! {
    /// Whatever is in a kernel: it is refused with words, or starts inside of what was loaded.
    #[test]
    fn broken_kernels_are_refused_or_sound(
        kind in 0usize..5,
        changes in prop::collection::vec((place(), any::<u8>()), 0..12),
        cut in prop::option::weighted(0.1, 0usize..0x400),
        ramdisk in prop::option::of(0usize..0x4000),
    ) {
        let mut file = match kind {
            0 => bzimage(),
            1 => elf(true),
            2 => elf(false),
            3 => multiboot_elf(),
            _ => multiboot_flat(),
        };
        for (at, byte) in changes {
            if let Some(place) = file.get_mut(at) {
                *place = byte;
            }
        }
        file.truncate(cut.unwrap_or(usize::MAX));
        let ramdisk = ramdisk.map(|size| File(vec![0x77; size]));
        let ramdisk = ramdisk.as_ref().map(|blob| blob as &dyn Blob);
        match try_start(&file, MEMORY, b"x", ramdisk) {
            Ok(started) if started.state.rax == 0 => {
                prop_assert!((MIB..MEMORY).contains(&started.state.rip));
            }
            Ok(started) => {
                let at = started.state.rip;
                prop_assert!((0x500..0x9_0000).contains(&at) || (MIB..MEMORY).contains(&at));
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}
