//! `redox-hvt`: runs Solo5 unikernels; a drop-in for `solo5-hvt`.
//!
//! All of it but its entry is in the library of the same name.
//!
//! There is no Rust `main`: its runtime makes system calls that a narrow outer filter forbids
//! (see [`start`]) and that a tender has no use for.

#![cfg_attr(not(test), no_main)]

mod emulated;
mod start;

#[cfg(feature = "static-runtime")]
use static_runtime as _;

use redox_hvt::args::{self, BackendChoice, Command, Options};
use redox_hvt::{FAILURE, run, tell, usage};
use std::ffi::CStr;

/// The C library's entry.
#[cfg(not(test))]
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
extern "C" fn main(argc: libc::c_int, argv: *const *const libc::c_char) -> libc::c_int {
    let count = usize::try_from(argc).unwrap_or(0);
    // SAFETY: the C library passes `argc` pointers to strings that live as long as the process.
    let words: Vec<&CStr> = (0..count).map(|i| unsafe { CStr::from_ptr(*argv.add(i)) }).collect();
    entry(&words)
}

#[cfg_attr(test, allow(dead_code))]
fn entry(words: &[&CStr]) -> i32 {
    let start_ns = host_linux::clock::monotonic_ns();
    host_linux::standard::fill();
    let (program, words) = words.split_first().map_or((c"redox-hvt", words), |(p, w)| (*p, w));
    tell::set_program(&program.to_string_lossy());
    match args::parse(words) {
        Ok(Command::Run(options)) if options.backend == BackendChoice::Qemu => {
            tell::warn(emulated::become_manager(words));
            FAILURE
        }
        Ok(Command::Run(options)) => run_or_tell(&options, start_ns),
        Ok(Command::Help) => help(),
        Ok(Command::Version) => {
            tell::raw(&usage::version());
            0
        }
        Err(refused) => {
            tell::warn(&refused.text);
            // Upstream's whole usage would push the message off the screen.
            match refused.usage {
                true if tell::is_upstream() => tell::raw(&usage::help()),
                true => tell::warn(usage::hint()),
                false => {}
            }
            FAILURE
        }
    }
}

/// Help that was asked for is a success and goes to standard output, except under upstream's
/// name, where it is neither.
fn help() -> i32 {
    if tell::is_upstream() {
        tell::raw(&usage::help());
        return FAILURE;
    }
    let text = usage::help();
    let _ = rustix::io::write(rustix::stdio::stdout(), text.as_bytes());
    0
}

fn run_or_tell(options: &Options, start_ns: u64) -> i32 {
    host_program::inherited::settle();
    match run::run(options, start_ns) {
        Ok(status) => status,
        Err(text) => {
            tell::warn(text);
            FAILURE
        }
    }
}
