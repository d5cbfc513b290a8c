//! What a host does not lend, in any mode.

use crate::host::HostError;
use alloc::string::String;

/// Why a host does not lend what a VM needs.
#[derive(Debug, thiserror::Error)]
pub enum LendError {
    /// The host cannot open something that the description names.
    #[error("{what} {name}: {error}; check the name, and that it may be used")]
    Resource {
        /// What it is.
        what: &'static str,
        /// What it is called.
        name: String,
        /// The host's words.
        error: HostError,
    },
    /// The host cannot lend what every guest needs.
    #[error("the host cannot run another guest: {0}; look at what it is short of")]
    Session(HostError),
}
