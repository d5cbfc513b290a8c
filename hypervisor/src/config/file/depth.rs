//! How deeply a text nests, found out before it is parsed: the parser calls itself for each level,
//! and a bare machine's stack is small.

/// Levels of arrays, tables and dotted keys that are read. A description needs four.
pub const MAX_DEPTH: usize = 16;

/// Whether a text nests more deeply than [`MAX_DEPTH`]. It may be no TOML at all; then the parser
/// says so.
pub fn is_too_deep(text: &str) -> bool {
    // Most texts have too few of what opens a level, wherever that stands.
    let opens = |byte: &u8| matches!(byte, b'[' | b'{' | b'.');
    if text.as_bytes().iter().filter(|byte| opens(byte)).nth(MAX_DEPTH).is_none() {
        return false;
    }
    let (mut rest, mut open, mut dots) = (text.as_bytes(), 0usize, 0usize);
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'#' => rest = behind(rest, |rest| rest.starts_with(b"\n"), 0),
            b'"' | b'\'' => rest = behind_string(rest, *first),
            b'[' | b'{' => (open, dots) = (open + 1, 0),
            b']' | b'}' => open = open.saturating_sub(1),
            b'.' => dots += 1,
            b',' | b'=' | b'\n' => dots = 0,
            _ => {}
        }
        if open.max(dots) > MAX_DEPTH {
            return true;
        }
    }
    false
}

/// What is behind the first place that `ends` likes, and so many bytes of it; nothing if there is
/// none.
fn behind(mut rest: &[u8], ends: impl Fn(&[u8]) -> bool, length: usize) -> &[u8] {
    while !rest.is_empty() && !ends(rest) {
        rest = &rest[1..];
    }
    rest.get(length..).unwrap_or(&[])
}

/// What is behind a string whose first quote was just read. An escaped quote does not end it.
fn behind_string(rest: &[u8], quote: u8) -> &[u8] {
    let three = [quote; 3];
    let (mut rest, end) = match rest.strip_prefix(&three[..2]) {
        Some(rest) => (rest, &three[..]),
        None => (rest, &three[..1]),
    };
    while !rest.is_empty() && !rest.starts_with(end) {
        let escaped = quote == b'"' && rest[0] == b'\\';
        rest = rest.get(if escaped { 2 } else { 1 }..).unwrap_or(&[]);
    }
    rest.get(end.len()..).unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn only_real_nesting_counts() {
        let deep = "[".repeat(MAX_DEPTH + 1);
        for text in [
            format!("a = {}", "[".repeat(MAX_DEPTH)),
            format!("# {deep}\na = 1"),
            format!("a = \"{deep}\\\"{deep}\""),
            format!("a = '{deep}'"),
            format!("a = '''\n'{deep}'''"),
            format!("a = \"\"\"{deep}\"\"\""),
            format!("a = {}", "[[1], [2]], ".repeat(100)),
            "a = 1.5\n".repeat(100),
        ] {
            assert!(!is_too_deep(&text), "{text}");
        }
        for text in [
            format!("a = {deep}"),
            format!("a = {}", "{a=".repeat(MAX_DEPTH + 1)),
            format!("a = \"\" # x\nb = {deep}"),
            "a.".repeat(MAX_DEPTH + 1),
            format!("[{}a]", "a.".repeat(MAX_DEPTH + 1)),
        ] {
            assert!(is_too_deep(&text), "{text}");
        }
    }
}
