//! Why a system call was refused, with the number that its caller sees.

use crate::config::ConfigError;
use crate::mode::ModeError;
use crate::vm::VmError;

/// Error numbers, as Redox and Linux have them.
pub mod errno {
    /// No such process: here, VM or vCPU.
    pub const ESRCH: u32 = 3;
    /// Input or output failed.
    pub const EIO: u32 = 5;
    /// No memory, or a limit is reached.
    pub const ENOMEM: u32 = 12;
    /// Busy: the VM is in the wrong state, the vCPU runs.
    pub const EBUSY: u32 = 16;
    /// An argument is wrong.
    pub const EINVAL: u32 = 22;
    /// There is no such call.
    pub const ENOSYS: u32 = 38;
    /// Not supported by the mode, or no backend.
    pub const EOPNOTSUPP: u32 = 95;
}

/// Why a system call was refused.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The number is none.
    #[error("there is no system call {0}: numbers are 0 to 9")]
    NoSuchCall(u32),
    /// The input has the wrong length.
    #[error("the input has {found} bytes: pass {wanted}")]
    Input {
        /// Its length.
        found: usize,
        /// The right one.
        wanted: usize,
    },
    /// The output does not fit.
    #[error("the output has room for {found} bytes: give {wanted}")]
    Output {
        /// Its length.
        found: usize,
        /// What is needed.
        wanted: usize,
    },
    /// A reserved field is not 0.
    #[error("a reserved {0} is set: pass 0")]
    Reserved(&'static str),
    /// A number is out of range.
    #[error("{field} is {value:#x}, which is out of range: see the structure's description")]
    Value {
        /// The field.
        field: &'static str,
        /// What was in it.
        value: u64,
    },
    /// A text is not UTF-8, not ended, or not followed by zero bytes.
    #[error("{0} is not a text: pass UTF-8, ended and filled up with zero bytes")]
    Text(&'static str),
    /// The description is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The vCPU runs already.
    #[error("the vCPU is running: wait until it returns")]
    Running,
    /// There is no such vCPU.
    #[error("the vCPU does not exist: create it first")]
    NoSuchVcpu,
    /// The image cannot be opened.
    #[error("the image cannot be opened: {0}; check its name")]
    Image(#[from] crate::host::HostError),
    /// The mode refused.
    #[error(transparent)]
    Mode(#[from] ModeError),
}

impl CallError {
    /// The number that the caller sees.
    pub fn errno(&self) -> u32 {
        match self {
            Self::NoSuchCall(_) => errno::ENOSYS,
            Self::Running => errno::EBUSY,
            Self::NoSuchVcpu => errno::ESRCH,
            Self::Image(_) => errno::EIO,
            Self::Mode(error) => of_mode(error),
            _ => errno::EINVAL,
        }
    }
}

fn of_mode(error: &ModeError) -> u32 {
    match error {
        ModeError::Config(_) | ModeError::Detect(_) | ModeError::Build(_) => errno::EINVAL,
        ModeError::Vm(VmError::NoSuchVm(_)) | ModeError::NoSuchVcpu { .. } => errno::ESRCH,
        ModeError::Vm(VmError::WrongState { .. }) => errno::EBUSY,
        ModeError::Vm(VmError::Build(_)) => errno::EINVAL,
        ModeError::Vm(_) => errno::ENOMEM,
        ModeError::Backend(_) => errno::EIO,
        ModeError::NoBackend { .. } | ModeError::Unsupported { .. } => errno::EOPNOTSUPP,
    }
}
