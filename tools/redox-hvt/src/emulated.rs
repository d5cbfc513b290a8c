//! `--backend=qemu`: `redox-vm` knows how; this process becomes that program, with the same
//! options.

#![allow(unsafe_code)]

use rustix::fs::readlink;
use rustix::io::Errno;
use std::ffi::{CStr, CString};

const MANAGER: &str = "redox-vm";
/// What tells it that a tender's options follow.
const COMMAND: &CStr = c"tender";

/// Becomes `redox-vm`: the one beside this program, else the first on `PATH`. Returns why it could
/// not, for a person.
pub fn become_manager(words: &[&CStr]) -> String {
    let beside = beside().and_then(|path| attempt(&path, words));
    let Ok(name) = CString::new(MANAGER) else { return String::new() };
    let error = match beside {
        Some(error) if error != Errno::NOENT => error,
        _ => attempt(&name, words).unwrap_or(Errno::NOENT),
    };
    format!(
        "--backend=qemu needs the program {MANAGER} beside this one or on PATH: cannot start it: \
         {error}"
    )
}

fn beside() -> Option<CString> {
    let own = readlink("/proc/self/exe", Vec::new()).ok()?;
    let folder = own.to_bytes().rsplitn(2, |byte| *byte == b'/').nth(1)?;
    CString::new([folder, b"/", MANAGER.as_bytes()].concat()).ok()
}

/// Gives the system's word where that program cannot be started.
fn attempt(program: &CStr, words: &[&CStr]) -> Option<Errno> {
    let mut pointers = vec![program.as_ptr(), COMMAND.as_ptr()];
    pointers.extend(words.iter().map(|word| word.as_ptr()));
    pointers.push(std::ptr::null());
    // SAFETY: strings with terminators that outlive the call, and a list that ends with null.
    unsafe { libc::execvp(program.as_ptr(), pointers.as_ptr()) };
    Errno::from_io_error(&std::io::Error::last_os_error())
}
