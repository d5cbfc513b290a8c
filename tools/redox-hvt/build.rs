//! Makes the tender start at its own entry point; see `src/start.rs`. With the feature
//! `static-runtime` it also keeps the C library out: see `host/runtime`.

use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bins=-Wl,-e,redox_hvt_start");
    if env::var_os("CARGO_FEATURE_STATIC_RUNTIME").is_some() {
        without_c_library();
    }
}

/// The parts of the C library that Rust's standard library names to the linker.
const LIBRARIES: [&str; 6] = ["c", "dl", "m", "pthread", "rt", "util"];

/// No start-up files of the C compiler, and empty archives in the C library's place: what the
/// runtime has not got is then an error of the linker.
fn without_c_library() {
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    for name in LIBRARIES {
        let archive = Path::new(&out).join(format!("lib{name}.a"));
        fs::write(archive, "!<arch>\n").expect("cannot write to OUT_DIR");
    }
    println!("cargo::rustc-link-search=native={out}");
    println!("cargo::rustc-link-arg-bins=-nostartfiles");
}
