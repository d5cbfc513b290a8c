//! Just enough of ELF to damage a unikernel, and to read a core file (System V gABI, 64-bit).

use std::fs;
use std::path::Path;

/// Program header type: loaded into memory.
pub const PT_LOAD: u32 = 1;
/// Program header type: notes.
pub const PT_NOTE: u32 = 4;
/// Note type of Solo5's ABI note, "ABI1".
pub const NOTE_ABI: u32 = u32::from_le_bytes(*b"ABI1");
/// Note type of Solo5's manifest, "MFT1".
pub const NOTE_MANIFEST: u32 = u32::from_le_bytes(*b"MFT1");
/// Offsets inside of a program header.
pub mod phdr {
    /// Permissions.
    pub const FLAGS: usize = 4;
    /// Where it is in the file.
    pub const OFFSET: usize = 8;
    /// Where it is in memory.
    pub const VADDR: usize = 16;
    /// Bytes in the file.
    pub const FILESZ: usize = 32;
    /// Bytes in memory.
    pub const MEMSZ: usize = 40;
}

/// An ELF file in memory.
pub struct Elf {
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Elf {
    /// Reads a file.
    ///
    /// # Panics
    /// If it is not a 64-bit ELF file.
    pub fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(&bytes[..5], b"\x7fELF\x02", "{}", path.display());
        Self { bytes }
    }

    /// Two bytes at `at`.
    pub fn half(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    /// Four bytes at `at`.
    pub fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    /// Eight bytes at `at`, as a size or an offset.
    ///
    /// # Panics
    /// If it is none.
    pub fn size(&self, at: usize) -> usize {
        usize::try_from(u64::from_le_bytes(self.array(at))).expect("64-bit machine")
    }

    /// Overwrites bytes.
    pub fn set(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Offsets of the program headers of this type.
    pub fn headers(&self, kind: u32) -> Vec<usize> {
        let (start, count) = (self.size(32), usize::from(self.half(56)));
        (0..count).map(|i| start + i * 56).filter(|&at| self.word(at) == kind).collect()
    }

    /// Offsets of the program header and of the descriptor of Solo5's note of this type.
    ///
    /// # Panics
    /// If there is none.
    pub fn note(&self, kind: u32) -> (usize, usize) {
        let is = |&at: &usize| self.word(self.size(at + phdr::OFFSET) + 8) == kind;
        let header = self.headers(PT_NOTE).into_iter().find(is).expect("a Solo5 note");
        let note = self.size(header + phdr::OFFSET);
        let name = self.word(note) as usize;
        (header, note + 12 + name.next_multiple_of(4))
    }

    /// The value of a symbol: its address.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn symbol(&self, name: &str) -> u64 {
        const SYMBOL_TABLE: u32 = 2;
        let section = |index: usize| self.size(40) + index * 64;
        let sections = (0..usize::from(self.half(60))).map(section);
        let table = sections.into_iter().find(|&at| self.word(at + 4) == SYMBOL_TABLE);
        let table = table.expect("a symbol table");
        let names = self.size(section(self.word(table + 40) as usize) + 24);
        let (start, size) = (self.size(table + 24), self.size(table + 32));
        let found = (start..start + size).step_by(24).find(|&at| {
            let text = &self.bytes[names + self.word(at) as usize..];
            text.starts_with(name.as_bytes()) && text[name.len()] == 0
        });
        self.size(found.unwrap_or_else(|| panic!("no symbol {name}")) + 8) as u64
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes[at..at + N].try_into().expect("N bytes")
    }
}

impl Elf {
    /// Replaces the manifest by one that declares these devices, of type 1 (block) or 2 (net). A
    /// device's handle is its index plus one.
    ///
    /// # Panics
    /// If there is no manifest to replace.
    pub fn declare(&mut self, devices: &[(&str, u32)]) {
        const RESERVED: u32 = 1 << 30;
        let mut content = 1u32.to_le_bytes().to_vec();
        content.extend(u32::try_from(devices.len() + 1).expect("few devices").to_le_bytes());
        for (name, kind) in [("", RESERVED)].iter().chain(devices) {
            let mut entry = [0; 104];
            entry[..name.len()].copy_from_slice(name.as_bytes());
            entry[68..72].copy_from_slice(&kind.to_le_bytes());
            content.extend(entry);
        }
        let (header, _) = self.note(NOTE_MANIFEST);
        let at = self.bytes.len().next_multiple_of(8);
        self.bytes.resize(at, 0);
        // Name, and padding that brings the content to a multiple of 8.
        let words = [6, u32::try_from(content.len() + 4).expect("few devices"), NOTE_MANIFEST];
        self.bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        self.bytes.extend(b"Solo5\0\0\0\0\0\0\0");
        self.bytes.extend(content);
        let size = (self.bytes.len() - at).to_le_bytes();
        self.set(header + phdr::OFFSET, &at.to_le_bytes());
        self.set(header + phdr::FILESZ, &size);
        self.set(header + phdr::MEMSZ, &size);
    }
}
