//! Why a mode did not do something.

use super::{ModeKind, VcpuId};
use crate::config::ConfigError;
use crate::detect::DetectError;
use crate::vcpu::BackendError;
use crate::vm::{VmError, VmId};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::error::Error;
use core::fmt;

/// Why a mode, or the front before the modes, did not do something.
#[derive(Debug, thiserror::Error)]
pub enum ModeError {
    /// The description is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The image tells no mode that could be used.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// The VM does not exist, is in the wrong state, or is too much.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// This mode was never registered: the host found no backend for it.
    #[error(
        "mode {mode} has no backend here, so {} cannot run; {}",
        .mode.guests(), Instead(available)
    )]
    NoBackend {
        /// The mode.
        mode: ModeKind,
        /// The modes that there are.
        available: Vec<ModeKind>,
    },
    /// Guests of this mode cannot use it.
    #[error("mode {mode} has no {what}: {instead}")]
    Unsupported {
        /// The mode.
        mode: ModeKind,
        /// What was asked for.
        what: &'static str,
        /// What to do.
        instead: &'static str,
    },
    /// There is no such vCPU, or no second one of it.
    #[error("VM {vm} has no vCPU {vcpu} to give: each of its {vcpus} is made once")]
    NoSuchVcpu {
        /// The VM.
        vm: VmId,
        /// What was asked for.
        vcpu: VcpuId,
        /// How many it has.
        vcpus: u32,
    },
    /// The VM could not be built, for a reason of its mode's own.
    #[error(transparent)]
    Build(Box<dyn Error + Send + Sync>),
}

impl ModeError {
    /// A reason of the mode's own.
    pub fn build(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Build(Box::new(error))
    }
}

/// What to write instead of a mode without backend.
struct Instead<'a>(&'a [ModeKind]);

impl fmt::Display for Instead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no other mode has one either");
        }
        for (i, mode) in self.0.iter().enumerate() {
            let lead = if i == 0 { "use" } else { ", or" };
            write!(f, "{lead} mode = \"{mode}\" for {}", mode.guests())?;
        }
        Ok(())
    }
}
