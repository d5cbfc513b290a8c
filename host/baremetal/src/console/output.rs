//! What guests print, on one terminal: whole lines behind their VM's name, or, of the VM that is
//! attached, every byte as it comes.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use hypervisor::memory::GuestSlice;

/// A line that does not end is shown in pieces of so many bytes.
const MAX_LINE: usize = 512;

/// So much of what a guest prints at once is shown before others have their turn.
const PIECE: usize = 256;

/// Shows what a guest prints, piece by piece: a unikernel may print all of its memory by one call.
/// After each piece but the last `goes_on` lets others have their turn, and says whether the rest
/// is to be shown, too.
pub fn in_pieces(
    text: GuestSlice<'_>,
    show: &mut dyn FnMut(&[u8]),
    goes_on: &mut dyn FnMut() -> bool,
) {
    let mut piece = [0; PIECE];
    let mut at = 0;
    while at < text.len() {
        let count = (text.len() - at).min(PIECE);
        let Some(part) = text.part(at, count) else { return };
        part.copy_to(&mut piece);
        show(&piece[..count]);
        at += count;
        if at < text.len() && !goes_on() {
            return;
        }
    }
}

struct Source {
    name: String,
    /// What was printed of a line that has not ended.
    line: Vec<u8>,
}

/// The outputs of all VMs, by number.
#[derive(Default)]
pub struct Outputs {
    sources: BTreeMap<u32, Source>,
    attached: Option<u32>,
}

impl Outputs {
    /// None yet, and none attached.
    pub const fn new() -> Self {
        Self { sources: BTreeMap::new(), attached: None }
    }

    /// A VM is there. What it prints needs no more memory.
    pub fn add(&mut self, vm: u32, name: &str) {
        let line = Vec::with_capacity(MAX_LINE);
        self.sources.insert(vm, Source { name: name.into(), line });
    }

    /// A VM's name; empty if there is no such VM.
    pub fn name(&self, vm: u32) -> &str {
        self.sources.get(&vm).map_or("", |source| &source.name)
    }

    /// A VM has ended or is gone: shows what is left of its last line.
    pub fn finish(&mut self, vm: u32, gone: bool, out: &mut dyn FnMut(&[u8])) {
        if let Some(source) = self.sources.get_mut(&vm)
            && !source.line.is_empty()
        {
            source.show(out);
        }
        if gone {
            self.sources.remove(&vm);
            self.attached = self.attached.filter(|attached| *attached != vm);
        }
    }

    /// Whether a VM has begun a line that has not ended.
    pub fn has_begun(&self, vm: u32) -> bool {
        self.sources.get(&vm).is_some_and(|source| !source.line.is_empty())
    }

    /// Attaches a VM, in place of another one, or none.
    pub fn attach(&mut self, vm: Option<u32>) {
        self.attached = vm;
    }

    /// Which one is attached.
    pub fn attached(&self) -> Option<u32> {
        self.attached
    }

    /// Takes what a VM printed; `out` is the terminal. While a VM is attached, others wait with
    /// the lines that they have begun, and lines that end are shown all the same only when none
    /// is attached: they are lost otherwise. Returns whether anything was shown.
    pub fn write(&mut self, vm: u32, bytes: &[u8], out: &mut dyn FnMut(&[u8])) -> bool {
        if self.attached == Some(vm) {
            out(bytes);
            return !bytes.is_empty();
        }
        let silent = self.attached.is_some();
        let Some(source) = self.sources.get_mut(&vm) else { return false };
        let mut shown = false;
        for byte in bytes {
            match byte {
                b'\r' => {}
                b'\n' => {
                    shown |= !silent;
                    if silent { source.line.clear() } else { source.show(out) }
                }
                byte if source.line.len() < MAX_LINE => source.line.push(*byte),
                byte => {
                    shown |= !silent;
                    if silent {
                        source.line.clear()
                    } else {
                        source.show(out)
                    }
                    source.line.push(*byte);
                }
            }
        }
        shown
    }
}

/// Whether a character does more than to show itself: the two sets of control characters (ECMA-48
/// §5.2 and §5.3; U+009B begins what ESC [ begins), and what turns the direction of text.
fn drives_terminal(character: char) -> bool {
    let turns = matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    character.is_control() && character != '\t' || turns
}

/// Shows a text whose parts may be a stranger's, such as names of files: what could drive the terminal
/// is shown as a dot. Ends of lines stay.
pub fn plain(text: &str, out: &mut dyn FnMut(&[u8])) {
    for character in text.chars() {
        let harmless = character == '\n' || !drives_terminal(character);
        let character = if harmless { character } else { '.' };
        out(character.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

impl Source {
    /// Shows the line. What could drive the terminal is shown as a dot: a guest's output is not
    /// to be trusted with the screen of others.
    fn show(&mut self, out: &mut dyn FnMut(&[u8])) {
        out(b"[");
        out(self.name.as_bytes());
        out(b"] ");
        for chunk in self.line.utf8_chunks() {
            for character in chunk.valid().chars() {
                let character = if drives_terminal(character) { '.' } else { character };
                out(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            // In terminals without UTF-8 some of these are control characters.
            chunk.invalid().iter().for_each(|_| out(b"."));
        }
        out(b"\n");
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Screen {
        outputs: Outputs,
        text: Vec<u8>,
    }

    impl Screen {
        fn new() -> Self {
            let mut outputs = Outputs::new();
            outputs.add(1, "one");
            outputs.add(2, "two");
            Self { outputs, text: Vec::new() }
        }

        fn write(&mut self, vm: u32, text: &[u8]) -> &mut Self {
            self.outputs.write(vm, text, &mut |bytes| self.text.extend(bytes));
            self
        }

        fn shown(&mut self) -> String {
            String::from_utf8_lossy(&core::mem::take(&mut self.text)).into_owned()
        }
    }

    #[test]
    fn lines_stay_whole() {
        let mut s = Screen::new();
        s.write(1, b"hel").write(2, b"other\r\nmore").write(1, b"lo\n");
        assert!(s.outputs.has_begun(2) && !s.outputs.has_begun(1));
        assert_eq!(s.shown(), "[two] other\n[one] hello\n");
        s.outputs.finish(2, true, &mut |bytes| s.text.extend(bytes));
        s.write(2, b"gone\n");
        assert_eq!(s.shown(), "[two] more\n");
    }

    #[test]
    fn the_attached_one_has_the_terminal() {
        let mut s = Screen::new();
        s.outputs.attach(Some(1));
        s.write(1, b"\x1b[1mraw").write(2, b"unseen\nbegun");
        assert_eq!(s.shown(), "\x1b[1mraw");
        s.outputs.attach(None);
        s.write(2, b" and ended\n");
        assert_eq!(s.shown(), "[two] begun and ended\n");
        s.outputs.attach(Some(2));
        s.outputs.finish(2, true, &mut |_| ());
        assert_eq!(s.outputs.attached(), None);
    }

    #[test]
    fn what_drives_a_terminal_is_not_passed_on() {
        let mut s = Screen::new();
        s.write(1, b"\x1b[2J\x07\tx\n");
        assert_eq!(s.shown(), "[one] .[2J.\tx\n");
        // The same in one character, of UTF-8 and of Latin-1; and text from right to left.
        s.write(1, b"\xc2\x9b2J\x9b2J \xe2\x80\xaeabc\n");
        assert_eq!(s.shown(), "[one] .2J.2J .abc\n");
    }

    #[test]
    fn text_is_shown_as_it_is() {
        let mut s = Screen::new();
        s.write(1, "À … 日本\n".as_bytes());
        assert_eq!(s.shown(), "[one] À … 日本\n");
    }

    #[test]
    fn long_text_is_shown_in_pieces_until_it_is_to_end() {
        let mut text: Vec<u8> = (0..=255).cycle().take(3 * PIECE + 1).collect();
        for (pieces, shown) in [(1, PIECE), (2, 2 * PIECE), (9, text.len())] {
            let (mut seen, mut left) = (Vec::new(), pieces);
            let slice = GuestSlice::from_host(&mut text);
            in_pieces(slice, &mut |piece| seen.extend_from_slice(piece), &mut || {
                left -= 1;
                left > 0
            });
            assert_eq!(seen, text[..shown]);
        }
        in_pieces(GuestSlice::from_host(&mut []), &mut |_| panic!(), &mut || panic!());
        in_pieces(GuestSlice::from_host(&mut text[..PIECE]), &mut |_| (), &mut || panic!());
    }

    #[test]
    fn a_line_without_end_is_shown_in_pieces() {
        let mut s = Screen::new();
        s.write(1, &[b'x'; 2 * MAX_LINE + 1]);
        assert_eq!(s.shown().matches("[one] ").count(), 2);
    }

    #[test]
    fn a_message_shows_what_would_drive_the_terminal() {
        let mut shown = Vec::new();
        plain("a\u{1b}[2J\u{9b}b\n\tc\r", &mut |bytes| shown.extend_from_slice(bytes));
        assert_eq!(shown, b"a.[2J.b\n\tc.");
    }
}
