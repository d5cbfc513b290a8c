//! Turns what the linker made into the image: only what is loaded, and the names of functions in
//! a form that the image can read (`host/baremetal/src/symbols.rs`).
//!
//! The image's last segment is the table of names. It lies behind everything else, so it can grow
//! without moving anything.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use object::elf::{FileHeader64, PF_W, PF_X, PT_LOAD, PT_NOTE};
use object::read::elf::{FileHeader, ProgramHeader, Sym};
use object::{Endianness, elf};

/// Bytes of a name at most: what the image makes room for.
const LONGEST: usize = 255;
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const LITTLE: Endianness = Endianness::Little;

/// A segment as it is written.
struct Segment {
    kind: u32,
    flags: u32,
    virtual_address: u64,
    physical_address: u64,
    memory_size: u64,
    align: u64,
    data: Vec<u8>,
}

/// Packs a linked image.
pub fn pack(linked: &[u8]) -> Result<Vec<u8>> {
    let header = FileHeader64::<Endianness>::parse(linked).context("the image is no ELF")?;
    let mut segments = segments(header, linked)?;
    let code = segments.iter().find(|s| s.flags & PF_X != 0 && s.flags & PF_W == 0);
    let code = code.context("the image has no code segment")?.virtual_address;
    let table = table(&functions(header, linked, code)?)?;
    let last = segments.iter_mut().filter(|s| s.kind == PT_LOAD).max_by_key(|s| s.virtual_address);
    let last = last.context("the image has no segments")?;
    ensure!(last.data == 4u32.to_le_bytes(), "the image's last segment is not its table of names");
    last.memory_size = table.len() as u64;
    last.data = table;
    Ok(write(header.e_entry.get(LITTLE), &segments))
}

fn segments(header: &FileHeader64<Endianness>, linked: &[u8]) -> Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for program in header.program_headers(LITTLE, linked)? {
        let kind = program.p_type(LITTLE);
        if kind != PT_LOAD && kind != PT_NOTE {
            continue;
        }
        let Ok(data) = program.data(LITTLE, linked) else { bail!("a segment beyond the file") };
        segments.push(Segment {
            kind,
            flags: program.p_flags(LITTLE),
            virtual_address: program.p_vaddr(LITTLE),
            physical_address: program.p_paddr(LITTLE),
            memory_size: program.p_memsz(LITTLE),
            align: if kind == PT_NOTE { 4 } else { 16 },
            data: data.to_vec(),
        });
    }
    Ok(segments)
}

/// Functions by address: where each begins, counted from `code`, and its name.
fn functions(
    header: &FileHeader64<Endianness>,
    linked: &[u8],
    code: u64,
) -> Result<Vec<(u32, String)>> {
    let sections = header.sections(LITTLE, linked)?;
    let symbols = sections.symbols(LITTLE, linked, elf::SHT_SYMTAB)?;
    let mut functions = Vec::new();
    for symbol in symbols.iter().filter(|s| s.st_type() == elf::STT_FUNC) {
        let Some(at) = symbol.st_value(LITTLE).checked_sub(code) else { continue };
        let name = String::from_utf8_lossy(symbol.name(LITTLE, symbols.strings())?);
        let name = format!("{:#}", rustc_demangle::demangle(&name));
        functions.push((u32::try_from(at)?, short(&name)));
    }
    functions.sort();
    functions.dedup_by_key(|(at, _)| *at);
    Ok(functions)
}

/// A name without its generic arguments, which are most of it, and not longer than the table takes.
/// What is left is what a reader looks for: the path of the type or trait, and the function.
fn short(name: &str) -> String {
    let mut out = String::new();
    let mut depth = 0usize;
    let mut before = ' ';
    let name = name.replace("->", "\u{2192}");
    for c in name.chars() {
        match c {
            // `<Type as Trait>::function` is no argument; `Type<..>` and `function::<..>` are.
            '<' if depth > 0 || before.is_alphanumeric() || matches!(before, '_' | ':') => {
                depth += 1
            }
            '>' if depth > 0 => depth -= 1,
            _ if depth == 0 => out.push(c),
            _ => {}
        }
        before = c;
    }
    let mut out = out.replace('\u{2192}', "->").replace(":::", "::");
    if out.ends_with("::") {
        out.truncate(out.len() - 2);
    }
    let mut end = out.len().min(LONGEST);
    while !out.is_char_boundary(end) {
        end -= 1;
    }
    out.truncate(end);
    out
}

/// The table, with its own length in front.
fn table(functions: &[(u32, String)]) -> Result<Vec<u8>> {
    let names: BTreeSet<&str> = functions.iter().map(|(_, name)| name.as_str()).collect();
    let numbers: BTreeMap<&str, u16> = names.iter().copied().zip(0..).collect();
    ensure!(names.len() == numbers.len(), "the image has more than 65,536 names of functions");
    let mut table = u32::try_from(functions.len())?.to_le_bytes().to_vec();
    table.extend(functions.iter().flat_map(|(at, _)| at.to_le_bytes()));
    for (_, name) in functions {
        let number = numbers.get(name.as_str()).context("a name without a number")?;
        table.extend(number.to_le_bytes());
    }
    let mut before = "";
    for name in names {
        let common = before.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
        let more = &name.as_bytes()[common..];
        table.extend([u8::try_from(common)?, u8::try_from(more.len())?]);
        table.extend(more);
        before = name;
    }
    let length = u32::try_from(4 + table.len())?;
    Ok([&length.to_le_bytes()[..], &table].concat())
}

/// An ELF file of these segments (System V ABI, "Object Files" and "Program Loading").
fn write(entry: u64, segments: &[Segment]) -> Vec<u8> {
    let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let word = |out: &mut Vec<u8>, value: u64, bytes: usize| {
        out.extend(&value.to_le_bytes()[..bytes]);
    };
    // Executable, x86-64, version 1.
    for (value, bytes) in [(2, 2), (62, 2), (1, 4), (entry, 8), (HEADER as u64, 8), (0, 8), (0, 4)]
    {
        word(&mut out, value, bytes);
    }
    let count = segments.len() as u64;
    for value in [HEADER as u64, PROGRAM_HEADER as u64, count, 64, 0, 0] {
        word(&mut out, value, 2);
    }
    let mut data = Vec::new();
    let start = HEADER + PROGRAM_HEADER * segments.len();
    for segment in segments {
        let at = (start + data.len()).next_multiple_of(16);
        data.resize(at - start, 0);
        data.extend(&segment.data);
        word(&mut out, u64::from(segment.kind), 4);
        word(&mut out, u64::from(segment.flags), 4);
        word(&mut out, at as u64, 8);
        word(&mut out, segment.virtual_address, 8);
        word(&mut out, segment.physical_address, 8);
        word(&mut out, segment.data.len() as u64, 8);
        word(&mut out, segment.memory_size, 8);
        word(&mut out, segment.align, 8);
    }
    out.extend(data);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_each_name_once_and_only_its_end() {
        let functions = [(0x10, "abc".into()), (0x20, "abd".into()), (0x30, "abc".into())];
        let table = table(&functions).unwrap();
        let words: Vec<u32> =
            table.chunks(4).map(|c| c.try_into().map_or(0, u32::from_le_bytes)).collect();
        assert_eq!(words[..5], [34, 3, 0x10, 0x20, 0x30]);
        assert_eq!(&table[20..], b"\0\0\x01\0\0\0\0\x03abc\x02\x01d");
    }

    #[test]
    fn generic_arguments_are_left_out() {
        for (long, expected) in [
            ("core::ptr::drop_in_place::<alloc::vec::Vec<u8>>", "core::ptr::drop_in_place"),
            ("<a::B<c::D<E>> as f::G<H>>::run::<I>", "<a::B as f::G>::run"),
            ("<a::B<fn(u8) -> u8>>::run", "<a::B>::run"),
            ("<a::B>::run::{closure#0}", "<a::B>::run::{closure#0}"),
            ("a::b", "a::b"),
        ] {
            assert_eq!(short(long), expected);
        }
        assert_eq!(short(&"x".repeat(300)).len(), LONGEST);
    }

    #[test]
    fn segments_come_out_as_they_went_in() {
        let segment = |kind, data: &[u8]| Segment {
            kind,
            flags: 5,
            virtual_address: 0xffff_ffff_8010_0000,
            physical_address: 0x10_0000,
            memory_size: 0x3000,
            align: 16,
            data: data.to_vec(),
        };
        let file = write(0x1234, &[segment(PT_LOAD, b"12345"), segment(PT_NOTE, b"678")]);
        let header = FileHeader64::<Endianness>::parse(&file[..]).unwrap();
        assert_eq!(header.e_entry(LITTLE), 0x1234);
        let found = segments(header, &file).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].memory_size, &found[0].data[..]), (0x3000, &b"12345"[..]));
        assert_eq!((found[1].kind, &found[1].data[..]), (PT_NOTE, &b"678"[..]));
    }
}
