//! The core crate builds where there is no operating system, on all three architectures.

use anyhow::Result;

use super::tally::Tally;
use crate::process;
use crate::setup::rust_src;

/// Builds the core for each bare-metal target.
pub fn build() -> Result<Tally> {
    let mut tally = Tally::default();
    for target in rust_src::BARE_METAL {
        tally.add(build_for(target).map_or_else(
            |error| {
                eprintln!("the core does not build for {target}: {error:#}");
                Tally::failure()
            },
            |()| Tally::success(),
        ));
    }
    Ok(tally)
}

fn build_for(target: &str) -> Result<()> {
    let mut command = process::cargo();
    command.args(["build", "--quiet", "--package", "hypervisor", "--target", target]);
    rust_src::standard_library(target)?.apply(&mut command);
    process::run(&mut command)
}
