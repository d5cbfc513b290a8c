//! A Linux guest's log, as `dmesg -r` prints it: its warnings, in a form that two boots share.

use std::collections::BTreeSet;

/// The least severe level that counts: KERN_WARNING.
const WARNING: u32 = 4;

/// Lines that may come on our machine and not on a bare one, by their beginnings in the form of
/// [`warnings`], with the reason. `cargo xtask image --test "four processors"` prints what is not
/// here.
const EXPECTED: [(&str, &str); 2] = [
    (
        "clocksource: Long readout interval, skipping watchdog check",
        "a timer came a second late: QEMU itself did not run, on a machine with more to do than CPUs",
    ),
    (
        "hrtimer: interrupt took # ns",
        "a vCPU waited for its CPU in the middle of a timer interrupt: there are two vCPUs for each",
    ),
];

/// The kernel's own warnings and worse, without level, time, numbers and addresses, which differ
/// between any two boots.
pub fn warnings(log: &str) -> BTreeSet<String> {
    log.lines().filter_map(warning).collect()
}

/// What the first log has beyond the second, and beyond what is expected.
pub fn beyond(log: &BTreeSet<String>, other: &BTreeSet<String>) -> Vec<String> {
    let expected = |line: &str| EXPECTED.iter().any(|(start, _)| line.starts_with(start));
    log.difference(other).filter(|line| !expected(line)).cloned().collect()
}

/// `<4>[    0.123456] text` of a kernel that is a warning or worse, in the common form.
fn warning(line: &str) -> Option<String> {
    let (level, rest) = line.trim().strip_prefix('<')?.split_once('>')?;
    // The bits above the level are the facility; the kernel's is 0. Others are programs' words.
    if level.parse::<u32>().ok()? > WARNING {
        return None;
    }
    let (_, text) = rest.trim_start().strip_prefix('[')?.split_once(']')?;
    Some(text.split_whitespace().map(common).collect::<Vec<_>>().join(" "))
}

/// A word with `#` for each number and address.
fn common(word: &str) -> String {
    let mut out = String::new();
    for part in word.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let (digits, end) = match part.char_indices().last() {
            Some((at, c)) if !c.is_ascii_alphanumeric() => part.split_at(at),
            _ => (part, ""),
        };
        let plain = digits.strip_prefix("0x").unwrap_or(digits);
        let hexadecimal = plain.len() > 7 && plain.bytes().all(|b| b.is_ascii_hexdigit());
        if digits.starts_with("0x") || hexadecimal {
            out.push('#');
        } else {
            decimals(digits, &mut out);
        }
        out.push_str(end);
    }
    out
}

/// Letters stay; runs of digits become one `#`.
fn decimals(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '0'..='9' if out.ends_with('#') => {}
            '0'..='9' => out.push('#'),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "<6>[    0.000000] Linux version 6.12\n\
        <4>[    0.004200] clocksource: CPU3 0xfee00000-0xFEE00FFF took 17us\r\n\
        <12>[    1.0] init: a program's own warning\n\
        <2>[   12.345678] BUG: at ffffffff81a0b3c4, be careful\n\
        no line of a log\n";

    #[test]
    fn only_the_kernels_warnings_are_taken() {
        let found = warnings(OURS);
        let expected =
            ["BUG: at #, be careful", "clocksource: CPU# #-# took #us"].map(String::from);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_expected_is_left_out() {
        let log = EXPECTED.map(|(start, _)| format!("<4>[ 1.0] {start}: 17\n")).concat();
        let found = warnings(&log);
        assert_eq!(found.len(), EXPECTED.len());
        assert!(beyond(&found, &BTreeSet::new()).is_empty());
    }

    #[test]
    fn another_boots_numbers_make_no_difference() {
        let bare = warnings("<4>[    9.000000] clocksource: CPU11 0x1000-0x2fff took 2us\n");
        let ours = warnings(OURS);
        assert_eq!(beyond(&ours, &bare), ["BUG: at #, be careful"]);
        assert!(beyond(&bare, &ours).is_empty());
    }
}
