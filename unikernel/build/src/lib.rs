//! What a unikernel's `build.rs` calls, so that a plain `cargo build` links it as Solo5's hvt
//! target wants: static, at a fixed address, without the C runtime, with our linker script.
//!
//! Order of calls: [`link`], or [`link_with_stack`] in its place, once, from `build.rs`.

use std::path::Path;

/// Default size of the stack in bytes.
pub const STACK_SIZE: u64 = 1 << 20;

/// Sizes that the stack may have, in bytes.
pub const STACK_SIZES: std::ops::RangeInclusive<u64> = 16 << 10..=256 << 20;

/// The linker script beside this crate.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/unikernel.ld");

/// Tells cargo how to link this package's binaries.
pub fn link() {
    link_with_stack(STACK_SIZE);
}

/// As [`link`], with a stack of `bytes`, rounded up to whole pages.
///
/// # Panics
///
/// Ends the build if `bytes` is outside [`STACK_SIZES`].
pub fn link_with_stack(bytes: u64) {
    assert!(
        STACK_SIZES.contains(&bytes),
        "a stack of {bytes} bytes is outside {STACK_SIZES:?}: choose a size in that range"
    );
    for flag in flags(Path::new(SCRIPT), bytes.next_multiple_of(4096)) {
        println!("cargo::rustc-link-arg-bins={flag}");
    }
    println!("cargo::rerun-if-changed={SCRIPT}");
}

/// The flags, for a C compiler driver in front of ld.bfd or lld.
fn flags(script: &Path, stack: u64) -> Vec<String> {
    let mut flags: Vec<String> = FIXED.iter().map(ToString::to_string).collect();
    flags.push(format!("-Wl,-T,{}", script.display()));
    flags.push(format!("-Wl,--defsym=__stack_size={stack}"));
    flags
}

/// Each flag overrides what rustc passes for an ordinary Linux program.
const FIXED: [&str; 8] = [
    "-static",
    // The tender maps the image at its own addresses and relocates nothing.
    "-no-pie",
    "-nostartfiles",
    "-nostdlib",
    // Segments are what the script says, no RELRO carved out of them.
    "-Wl,-z,norelro",
    "-Wl,-z,max-page-size=4096",
    "-Wl,-z,noexecstack",
    "-Wl,--build-id=none",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_and_stack_are_passed() {
        let flags = flags(Path::new("/a b/x.ld"), 8192);
        assert!(flags.contains(&"-Wl,-T,/a b/x.ld".into()));
        assert!(flags.contains(&"-Wl,--defsym=__stack_size=8192".into()));
        assert!(flags.contains(&"-no-pie".into()));
    }

    #[test]
    fn script_exists() {
        assert!(Path::new(SCRIPT).is_file());
    }
}
