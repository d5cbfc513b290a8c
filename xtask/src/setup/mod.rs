//! Fetches what the tests need and this machine lacks: Debian packages, unpacked into the cache.
//!
//! Idempotent: what is there is not fetched again. No step asks anything or needs root.

pub mod apt;
pub mod boot_disc;
pub mod firmware;
pub mod kernel;
pub mod programs;
pub mod rust_src;

use anyhow::Result;

use crate::process;

/// Fetches everything, and says where it is.
pub fn everything() -> Result<()> {
    let emulator = programs::qemu()?;
    process::say(&format!("QEMU: {}", emulator.program.display()));
    let kernel = kernel::get()?;
    process::say(&format!("Linux for the test machine: {}", kernel.version));
    process::say(&format!("busybox: {}", programs::busybox()?.display()));
    process::say(&format!("gdb: {}", programs::gdb()?.display()));
    process::say(&format!(
        "gdb for the test machine: {}",
        programs::small_gdb()?.program.display()
    ));
    for program in [programs::PASST, programs::IP, programs::PING] {
        process::say(&format!("{}: {}", program.name, program.get()?.display()));
    }
    for target in rust_src::BARE_METAL {
        let library = rust_src::standard_library(target)?;
        process::say(&format!("core and alloc for {target}: {library}"));
    }
    Ok(())
}
