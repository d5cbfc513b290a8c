//! What every program for Linux here does alike, whether it runs guests or only prepares their
//! files. It needs neither the core nor Rust's runtime.

pub mod inherited;
pub mod output;
