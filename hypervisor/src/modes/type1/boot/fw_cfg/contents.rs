//! The items, by their keys, and the directory of those that have names.

use super::Machine;
use crate::modes::type1::boot::map::Kind;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Longest name of a file.
pub const FILE_NAME_MAX: usize = 55;

const SIGNATURE: u16 = 0x00;
const ID: u16 = 0x01;
const NB_CPUS: u16 = 0x05;
const MAX_CPUS: u16 = 0x0f;
const FILE_DIR: u16 = 0x19;
const FIRST_FILE: u16 = 0x20;
/// The traditional interface, and DMA.
const FEATURES: u32 = 0b11;
/// Bits of a selector that say how it is accessed, not what.
const KEY: u16 = 0x3fff;

/// COM1, to which SeaBIOS sends its text.
const SERIAL_CONSOLE: u16 = 0x3f8;

#[derive(Debug)]
struct File {
    name: Vec<u8>,
    key: u16,
    /// Whether its contents come when it is first selected.
    late: bool,
}

/// All items.
#[derive(Debug, Default)]
pub struct Contents {
    items: BTreeMap<u16, Vec<u8>>,
    files: Vec<File>,
}

impl Contents {
    /// What every machine has.
    pub(super) fn new(machine: &Machine<'_>) -> Self {
        let mut contents = Self::default();
        contents.set(SIGNATURE, b"QEMU");
        contents.set(ID, &FEATURES.to_le_bytes());
        contents.set(NB_CPUS, &machine.vcpus.to_le_bytes());
        contents.set(MAX_CPUS, &machine.vcpus.to_le_bytes());
        let mut map = Vec::new();
        for row in machine.map {
            map.extend_from_slice(&row.range.start.to_le_bytes());
            map.extend_from_slice(&(row.range.end - row.range.start).to_le_bytes());
            map.extend_from_slice(&(row.kind as u32).to_le_bytes());
        }
        debug_assert!(machine.map.iter().any(|row| row.kind == Kind::Ram));
        contents.add_file("etc/e820", map);
        contents.add_file("etc/max-cpus", machine.vcpus.to_le_bytes().to_vec());
        if machine.serial_console {
            contents.add_file("etc/sercon-port", SERIAL_CONSOLE.to_le_bytes().to_vec());
        }
        contents
    }

    /// Adds a file. A name that is too long is cut.
    pub fn add_file(&mut self, name: &str, bytes: Vec<u8>) {
        self.add(name, bytes, false);
    }

    /// Adds a file whose contents are of this size and come later.
    pub(super) fn add_late(&mut self, name: &str, size: usize) {
        self.add(name, alloc::vec![0; size], true);
    }

    /// Gives a late file its contents, cut or padded to the size that was announced.
    pub(super) fn fill_late(&mut self, name: &str, mut bytes: Vec<u8>) {
        let file = self.files.iter().find(|file| file.name == name.as_bytes());
        if let Some(item) = file.and_then(|file| self.items.get_mut(&file.key)) {
            bytes.resize(item.len(), 0);
            *item = bytes;
        }
    }

    /// Whether this is the key of a late file.
    pub(super) fn is_late(&self, key: u16) -> bool {
        self.files.iter().any(|file| file.late && file.key == key & KEY)
    }

    /// The item with this key, empty if there is none.
    pub(super) fn get(&self, key: u16) -> &[u8] {
        self.items.get(&(key & KEY)).map(Vec::as_slice).unwrap_or_default()
    }

    fn set(&mut self, key: u16, bytes: &[u8]) {
        self.items.insert(key, bytes.to_vec());
    }

    fn add(&mut self, name: &str, bytes: Vec<u8>, late: bool) {
        let name = name.as_bytes()[..name.len().min(FILE_NAME_MAX)].to_vec();
        let key = FIRST_FILE + u16::try_from(self.files.len()).unwrap_or(KEY - FIRST_FILE);
        self.items.insert(key, bytes);
        self.files.push(File { name, key, late });
        self.set(FILE_DIR, &self.directory());
    }

    /// A count, then size, key and name of each: big-endian, 64 bytes.
    fn directory(&self) -> Vec<u8> {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes();
        let mut directory = number(self.files.len()).to_vec();
        for file in &self.files {
            directory.extend_from_slice(&number(self.get(file.key).len()));
            directory.extend_from_slice(&file.key.to_be_bytes());
            directory.extend_from_slice(&[0; 2]);
            let mut name = [0; FILE_NAME_MAX + 1];
            name[..file.name.len()].copy_from_slice(&file.name);
            directory.extend_from_slice(&name);
        }
        directory
    }
}
