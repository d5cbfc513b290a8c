//! Each rule has its error, and the arithmetic of alignment agrees with arithmetic that is too
//! slow to be wrong.

use super::*;
use crate::modes::hvt::arch::GuestArch::X86_64;
use alloc::vec;

const BASE: u64 = GUEST_MIN_BASE;
const FILE: u64 = 0x10_0000;

fn header(flags: u32, offset: u64, vaddr: u64, filesz: u64, memsz: u64) -> ProgramHeader {
    ProgramHeader {
        kind: PT_LOAD.into(),
        flags: flags.into(),
        offset: offset.into(),
        vaddr: vaddr.into(),
        paddr: 0.into(),
        filesz: filesz.into(),
        memsz: memsz.into(),
        align: 0x1000.into(),
    }
}

fn good() -> ProgramHeader {
    header(5, 0x1000, BASE, 0x800, 0x1800)
}

/// What is wrong with `bad` when it follows a good header.
fn fault(bad: ProgramHeader) -> SegmentFault {
    let error = collect(&[good(), bad], X86_64, FILE).unwrap_err();
    assert_eq!(error.index, 1);
    error.fault
}

#[test]
fn a_good_segment_is_placed() {
    let segments = collect(&[good(), header(6, 0, BASE + 0x2010, 0, 0x10)], X86_64, FILE).unwrap();
    assert_eq!(segments[0].range, BASE..BASE + 0x2000);
    assert_eq!(segments[0].perms, Perms::READ | Perms::EXEC);
    assert_eq!((segments[0].file_offset, segments[0].file_size), (0x1000, 0x800));
    assert_eq!(segments[1].range, BASE + 0x2000..BASE + 0x3000);
    assert_eq!((segments[1].vaddr, segments[1].file_size), (BASE + 0x2010, 0));
}

#[test]
fn empty_segments_and_other_headers_are_passed_over() {
    let mut other = header(7, 0, 0, 1, 1);
    other.kind = 2.into();
    assert_eq!(collect(&[header(7, 0, 0, 0, 0), other], X86_64, FILE), Ok(vec![]));
}

#[test]
fn segments_below_the_base_are_refused() {
    let below = |vaddr, align: u64| {
        let headers = [ProgramHeader { align: align.into(), ..header(4, 0, vaddr, 1, 1) }];
        collect(&headers, X86_64, FILE).unwrap_err().fault
    };
    for vaddr in [0, 1, BASE - 1] {
        let start = vaddr & !0xfff;
        assert_eq!(below(vaddr, 0x1000), SegmentFault::BelowBase { start });
    }
    // Above by itself, below once it is aligned.
    assert_eq!(below(BASE + 0x1000, 0x20_0000), SegmentFault::BelowBase { start: 0 });
}

#[test]
fn order_and_overlap_are_checked() {
    let previous = BASE + 0x4000;
    let headers = [header(4, 0, previous, 1, 1), header(4, 0, BASE, 1, 1)];
    let fault_of = |headers: &[_]| collect(headers, X86_64, FILE).unwrap_err().fault;
    assert_eq!(fault_of(&headers), SegmentFault::NotAscending { vaddr: BASE, previous });
    for vaddr in [BASE, BASE + 0x17ff, BASE + 0x1fff] {
        let start = vaddr & !0xfff;
        let overlap = SegmentFault::Overlap { start, end: BASE + 0x2000 };
        assert_eq!(fault(header(4, 0, vaddr, 1, 1)), overlap, "{vaddr:#x}");
    }
    let next = header(4, 0, BASE + 0x2000, 1, 1);
    assert!(collect(&[good(), next], X86_64, FILE).is_ok());
    // The same header again, as a loop in the table would give.
    assert_eq!(fault(good()), SegmentFault::Overlap { start: BASE, end: BASE + 0x2000 });
}

#[test]
fn sizes_are_checked() {
    let at = BASE + 0x2000;
    let larger = SegmentFault::FileLarger { filesz: 2, memsz: 1 };
    assert_eq!(fault(header(4, 0, at, 2, 1)), larger);
    let wraps = |memsz| SegmentFault::Wraps { vaddr: at, memsz };
    // The sum wraps around; the sum does not but its alignment does.
    for memsz in [u64::MAX, 0u64.wrapping_sub(at), 0u64.wrapping_sub(at) - 1] {
        assert_eq!(fault(header(4, 0, at, 0, memsz)), wraps(memsz), "{memsz:#x}");
    }
    let huge = |memsz| fault(header(4, 0, at, 0, memsz));
    assert_eq!(huge(MAX_MEMORY - at + 1), SegmentFault::Huge(MAX_MEMORY + 0x1000));
    assert_eq!(huge(1 << 63), SegmentFault::Huge((1 << 63) + at));
    let largest = header(6, 0, at, 0, MAX_MEMORY - at);
    assert!(collect(&[good(), largest], X86_64, FILE).is_ok());
}

#[test]
fn alignment_is_checked() {
    let with =
        |align: u64| ProgramHeader { align: align.into(), ..header(4, 0, BASE + 0x2001, 1, 1) };
    for align in [0, 3, 0x1001, u64::MAX] {
        assert_eq!(fault(with(align)), SegmentFault::Alignment(align));
    }
    assert_eq!(fault(with(1)), SegmentFault::Misaligned(BASE + 0x2001));
    assert_eq!(fault(with(0x800)), SegmentFault::Misaligned(BASE + 0x2800));
    assert_eq!(fault(with(1 << 63)), SegmentFault::BelowBase { start: 0 });
}

#[test]
fn no_segment_is_writable_and_executable() {
    for flags in 0..8 {
        let result = collect(&[header(flags, 0, BASE, 1, 1)], X86_64, FILE);
        if flags & 3 == 3 {
            assert_eq!(result.unwrap_err().fault, SegmentFault::WriteExec);
        } else {
            let perms = result.unwrap()[0].perms;
            assert_eq!(perms.contains(Perms::EXEC), flags & 1 != 0);
            assert_eq!(perms.contains(Perms::WRITE), flags & 2 != 0);
            assert_eq!(perms.contains(Perms::READ), flags & 4 != 0);
        }
    }
}

#[test]
fn a_place_beyond_the_file_is_refused() {
    let at = |offset, filesz| fault(header(4, offset, BASE + 0x2000, filesz, filesz));
    let truncated = |offset, filesz| SegmentFault::Truncated { offset, filesz, file: FILE };
    assert_eq!(at(FILE - 1, 2), truncated(FILE - 1, 2));
    assert_eq!(at(u64::MAX - 1, 1), truncated(u64::MAX - 1, 1));
    assert_eq!(at(u64::MAX, 1), SegmentFault::FileWraps { offset: u64::MAX, filesz: 1 });
    let last = header(4, FILE - 1, BASE + 0x2000, 1, 1);
    assert!(collect(&[good(), last], X86_64, FILE).is_ok());
}

/// Every small address, size and alignment, and the same right below the end of all addresses,
/// against a search for the boundaries one by one.
#[test]
fn alignment_agrees_with_a_search() {
    const MOST: u64 = if cfg!(miri) { 6 } else { 40 };
    for align in 0..=MOST {
        for (vaddr, memsz) in (0..MOST).flat_map(|v| (0..MOST).map(move |m| (v, m))) {
            for base in [0u64, 0u64.wrapping_sub(MOST)] {
                check_alignment(base.wrapping_add(vaddr), memsz, align);
            }
        }
    }
}

fn check_alignment(vaddr: u64, memsz: u64, align: u64) {
    let found = aligned(vaddr, memsz, align);
    if !(0..64).any(|bit| align == 1 << bit) {
        assert_eq!(found, Err(SegmentFault::Alignment(align)));
        return;
    }
    let wide = |value: u64| u128::from(value);
    let start = (0..=wide(vaddr)).rev().find(|a| a % wide(align) == 0).unwrap();
    let end = (wide(vaddr) + wide(memsz)..).find(|a| a % wide(align) == 0).unwrap();
    match found {
        Ok(range) => assert_eq!((wide(range.start), wide(range.end)), (start, end)),
        Err(fault) => {
            assert_eq!(fault, SegmentFault::Wraps { vaddr, memsz });
            assert!(end > wide(u64::MAX));
        }
    }
}

/// All pairs of small segments: the second is refused exactly if a page belongs to both or it
/// comes before.
#[test]
fn overlap_agrees_with_a_comparison_of_pages() {
    const STEP: u64 = 0x400;
    let pages = |v: u64, m: u64| v / 0x1000..=(v + m - 1) / 0x1000;
    let starts = || (0..12).step_by(if cfg!(miri) { 5 } else { 1 });
    for (a, b) in starts().flat_map(|a| starts().map(move |b| (a, b))) {
        for (m, n) in (1..8).flat_map(|m| (1..8).map(move |n| (m, n))) {
            let (a, b) = (BASE + a * STEP, BASE + b * STEP);
            let (m, n) = (m * STEP, n * STEP);
            let headers = [header(4, 0, a, 0, m), header(4, 0, b, 0, n)];
            let shared = pages(a, m).any(|page| pages(b, n).contains(&page));
            let accepted = collect(&headers, X86_64, FILE).is_ok();
            assert_eq!(accepted, !shared && a <= b, "{a:#x} {m:#x} {b:#x} {n:#x}");
        }
    }
}
