//! fw_cfg as firmware talks to it, and as a hostile guest does.

#![allow(clippy::single_range_in_vec_init, reason = "a list of one range is meant")]

use super::*;
use crate::modes::hvt::fixture::{Ram, ram};
use crate::modes::type1::boot::acpi::Facts;
use crate::modes::type1::boot::map::without_firmware;
use alloc::string::String;
use alloc::vec;
use core::sync::atomic::{AtomicU32, Ordering};
use proptest::prelude::*;

struct Bench {
    device: FwCfg,
    ram: Ram,
    built: Arc<AtomicU32>,
}

fn facts(ecam: u64) -> Facts {
    let ecam = Some(ecam..ecam + (1 << 28));
    Facts { vcpus: 2, ecam, windows: vec![0xc000_0000..0xe000_0000], window64: None }
}

fn bench() -> Bench {
    let ram = ram(0..1 << 20);
    let built = Arc::new(AtomicU32::new(0));
    let count = built.clone();
    // The first answer is asked for its size; the second is the one that counts.
    let tables = Box::new(move || {
        let later = count.fetch_add(1, Ordering::Relaxed) > 0;
        Tables::build(&facts(if later { 0xb000_0000 } else { 0xe000_0000 }))
    });
    let map = without_firmware(&[0..1 << 21], &[]);
    let machine = Machine { vcpus: 2, map: &map, serial_console: true };
    let device = FwCfg::new(&machine, tables, Arc::new(ram.memory.clone()));
    Bench { device, ram, built }
}

impl Bench {
    fn write(&mut self, offset: u64, width: Width, value: u64) {
        self.device.write(Access { offset, width }, value, &mut Effects::new());
    }

    fn read(&mut self, offset: u64, width: Width) -> u64 {
        self.device.read(Access { offset, width }, &mut Effects::new()) & width.mask()
    }

    fn bytes(&mut self, key: u16, count: usize) -> Vec<u8> {
        self.write(SELECTOR, Width::Word, key.into());
        (0..count).map(|_| u8::try_from(self.read(DATA, Width::Byte)).unwrap()).collect()
    }

    /// Key and size of a file, found as firmware finds it.
    fn file(&mut self, name: &str) -> (u16, usize) {
        let count = u32::from_be_bytes(self.bytes(0x19, 4).try_into().unwrap());
        let directory = self.bytes(0x19, 4 + 64 * usize::try_from(count).unwrap());
        let entry = directory[4..].chunks(64).find(|entry| {
            let end = entry[8..].iter().position(|byte| *byte == 0).unwrap();
            String::from_utf8(entry[8..8 + end].to_vec()).unwrap() == name
        });
        let entry = entry.unwrap();
        let size = u32::from_be_bytes(entry[..4].try_into().unwrap());
        (u16::from_be_bytes([entry[4], entry[5]]), usize::try_from(size).unwrap())
    }

    /// A DMA transfer; returns what is in the descriptor's control field afterwards.
    fn dma(&mut self, control: u32, length: u32, address: u64) -> u32 {
        let mut descriptor = control.to_be_bytes().to_vec();
        descriptor.extend_from_slice(&length.to_be_bytes());
        descriptor.extend_from_slice(&address.to_be_bytes());
        self.ram.memory.write_bytes(Gpa(0x1000), &descriptor).unwrap();
        self.write(DMA_HIGH, Width::Long, 0);
        self.write(DMA_LOW, Width::Long, u32::to_be(0x1000).into());
        u32::from_be_bytes(self.ram.memory.read_obj(Gpa(0x1000)).unwrap())
    }
}

use crate::memory::Gpa;

#[test]
fn firmware_finds_what_it_looks_for() {
    let mut bench = bench();
    assert_eq!(bench.bytes(0, 6), b"QEMU\0\0");
    assert_eq!(bench.bytes(1, 4), [3, 0, 0, 0]);
    assert_eq!(bench.bytes(5, 2), [2, 0]);
    assert_eq!(bench.read(4, Width::Long), u64::from(u32::from_le_bytes(*b"QEMU")));
    assert_eq!(bench.read(8, Width::Long), u64::from(u32::from_le_bytes(*b" CFG")));
    let (key, size) = bench.file("etc/e820");
    assert_eq!(size, 3 * 20);
    assert_eq!(bench.bytes(key, 20), [&[0; 9][..], &[0xfc, 9], &[0; 5], &[1, 0, 0, 0]].concat());
    let (key, size) = bench.file("etc/sercon-port");
    assert_eq!(bench.bytes(key, size), [0xf8, 3]);
    assert_eq!(bench.bytes(0x1234, 2), [0, 0]);
}

#[test]
fn dma_copies_skips_and_refuses() {
    let mut bench = bench();
    let (key, size) = bench.file("etc/e820");
    let select = u32::from(key) << 16 | 8;
    let size = u32::try_from(size).unwrap();
    bench.ram.memory.write_bytes(Gpa(0x2000), &[0xee; 80]).unwrap();
    assert_eq!(bench.dma(select | 2, size + 4, 0x2000), 0);
    let copied: [u8; 65] = bench.ram.memory.read_obj(Gpa(0x2000)).unwrap();
    assert_eq!((&copied[16..20], &copied[60..]), (&[1, 0, 0, 0][..], &[0, 0, 0, 0, 0xee][..]));
    assert_eq!(bench.dma(select | 4, 16, 0), 0);
    assert_eq!(bench.dma(2, 4, 0x2000), 0);
    assert_eq!(bench.ram.memory.read_obj::<u32>(Gpa(0x2000)), Ok(1));
    assert_eq!(bench.dma(select | 16, 4, 0x2000), 1);
    assert_eq!(bench.dma(select | 2, u32::MAX, 0x2000), 1);
    assert_eq!(bench.dma(select | 2, 4, 0xf_ffff), 1);
    assert_eq!(bench.dma(select | 2, 4, u64::MAX), 1);
    assert_eq!(bench.dma(select, 0, 0), 0);
}

/// Does what SeaBIOS and OVMF do with the script, and walks to a table.
#[test]
fn tables_are_placed_by_the_script_as_the_machine_is_then() {
    let mut bench = bench();
    assert_eq!(bench.built.load(Ordering::Relaxed), 1);
    let files: Vec<_> = ["etc/acpi/tables", "etc/acpi/rsdp", "etc/table-loader"]
        .iter()
        .map(|name| bench.file(name))
        .collect();
    assert_eq!(bench.built.load(Ordering::Relaxed), 1);
    let mut blobs: Vec<_> = files.iter().map(|(key, size)| bench.bytes(*key, *size)).collect();
    assert_eq!(bench.built.load(Ordering::Relaxed), 2);
    let script = blobs.pop().unwrap();
    let base = [0x4_0000u64, 0xf_0000];
    let number =
        |bytes: &[u8]| usize::try_from(u32::from_le_bytes(bytes.try_into().unwrap())).unwrap();
    let which = |name: &[u8]| usize::from(name.starts_with(b"etc/acpi/rsdp"));
    let mut commands = [0; 4];
    for entry in script.chunks(128) {
        let (command, fields) = (number(&entry[..4]), &entry[4..]);
        commands[command] += 1;
        let blob = which(fields);
        match command {
            2 => {
                let (to, at) = (which(&fields[56..]), number(&fields[112..116]));
                let width = usize::from(fields[116]);
                let mut value = [0; 8];
                value[..width].copy_from_slice(&blobs[blob][at..at + width]);
                let value = u64::from_le_bytes(value) + base[to];
                blobs[blob][at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
            }
            3 => {
                let (at, start) = (number(&fields[56..60]), number(&fields[60..64]));
                let end = start + number(&fields[64..68]);
                assert_eq!(blobs[blob][at], 0);
                let sum = blobs[blob][start..end].iter().fold(0u8, |a, b| a.wrapping_add(*b));
                blobs[blob][at] = sum.wrapping_neg();
            }
            _ => assert!(command < 2),
        }
    }
    assert_eq!((commands[1], commands[2], commands[3]), (2, 3 + 3 + 1, 5 + 2));
    let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |a, b| a.wrapping_add(*b));
    assert_eq!(sum(&blobs[1][..36]), 0);
    let quad = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let at = |address: u64| usize::try_from(address - base[0]).unwrap();
    let xsdt = at(quad(&blobs[1][24..32]));
    assert_eq!(&blobs[0][xsdt..xsdt + 4], b"XSDT");
    let mcfg = at(quad(&blobs[0][xsdt + 52..xsdt + 60]));
    assert_eq!(&blobs[0][mcfg..mcfg + 4], b"MCFG");
    assert_eq!(quad(&blobs[0][mcfg + 44..mcfg + 52]), 0xb000_0000);
    assert_eq!(sum(&blobs[0][mcfg..mcfg + 60]), 0);
}

proptest! {
    #[test]
    fn no_access_panics(
        steps in prop::collection::vec((0u64..12, 0usize..4, any::<u64>(), any::<bool>()), 0..60),
        descriptor in any::<[u8; 16]>(),
    ) {
        let mut bench = bench();
        bench.ram.memory.write_bytes(Gpa(0x3000), &descriptor).unwrap();
        for (offset, width, value, write) in steps {
            let width = Width::ALL[width];
            let value = if value % 3 == 0 { u32::to_be(0x3000).into() } else { value };
            if write {
                bench.write(offset, width, value & width.mask());
            } else {
                bench.read(offset, width);
            }
        }
    }
}
