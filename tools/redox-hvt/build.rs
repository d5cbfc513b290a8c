//! Makes the tender start at its own entry point; see `src/start.rs`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bins=-Wl,-e,redox_hvt_start");
}
