//! A description of a VM from a stranger: refused with a place and words, or accepted.

#![no_main]

use hypervisor::config::VmConfig;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match VmConfig::from_toml(text) {
        Ok(config) => drop(format!("{config:?}")),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
