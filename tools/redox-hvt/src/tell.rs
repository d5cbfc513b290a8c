//! Words for a person, on standard error, each line with the program's name in front, as the
//! BSD functions warnx(3) and errx(3) do it and programs that call solo5-hvt expect it.

use host_linux::room;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

static PROGRAM: OnceLock<String> = OnceLock::new();

/// The name that solo5-hvt's users call it by.
const UPSTREAM: &str = "solo5-hvt";

/// Whether a signal has ended the run.
static IN_A_HURRY: AtomicBool = AtomicBool::new(false);

/// From now on words that nobody reads are given up: a signal ends the process.
pub fn hurry() {
    IN_A_HURRY.store(true, Relaxed);
}

/// Whether that was said.
pub fn in_a_hurry() -> bool {
    IN_A_HURRY.load(Relaxed)
}

/// Sets the program's name from `argv[0]`, once.
pub fn set_program(path: &str) {
    let name = path.rsplit('/').next().filter(|name| !name.is_empty());
    let _ = PROGRAM.set(name.unwrap_or("redox-hvt").to_owned());
}

/// The program's name.
pub fn program() -> &'static str {
    PROGRAM.get().map_or("redox-hvt", String::as_str)
}

/// Whether it was called as solo5-hvt, and has to behave like it to the letter.
pub fn is_upstream() -> bool {
    program().starts_with(UPSTREAM)
}

/// Writes one line, in one system call.
pub fn warn(text: impl std::fmt::Display) {
    raw(&format!("{}: {}\n", program(), without_numbers(text.to_string())));
}

/// Errors of the system in their words alone, as err(3) has them: without Rust's " (os error 2)".
fn without_numbers(mut text: String) -> String {
    const BEGIN: &str = " (os error ";
    let mut from = 0;
    while let Some(at) = text[from..].find(BEGIN).map(|at| from + at) {
        let number = &text[at + BEGIN.len()..];
        match number.find(')') {
            Some(end) if end > 0 && number[..end].bytes().all(|b| b.is_ascii_digit()) => {
                text.replace_range(at..at + BEGIN.len() + end + 1, "");
                from = at;
            }
            _ => from = at + BEGIN.len(),
        }
    }
    text
}

/// Writes text to standard error as it is. There is nobody to tell where that fails.
pub fn raw(text: &str) {
    let stderr = rustix::stdio::stderr();
    let mut rest = text.as_bytes();
    while !rest.is_empty() && room::wait(stderr, in_a_hurry()) {
        match rustix::io::write(stderr, &rest[..rest.len().min(room::BYTES)]) {
            Ok(count @ 1..) => rest = &rest[count..],
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::without_numbers;

    #[test]
    fn the_systems_words_have_no_numbers() {
        let plain = |text: &str| without_numbers(text.to_owned());
        assert_eq!(plain("a: gone (os error 2); b: full (os error 28)"), "a: gone; b: full");
        assert_eq!(plain("x (os error ) (os error z"), "x (os error ) (os error z");
        assert_eq!(plain("nothing"), "nothing");
    }
}
