//! Why a unikernel could not be made ready.

use crate::mode::LendError;
use crate::modes::hvt::attach::AttachError;
use crate::modes::hvt::cmdline::CmdlineError;
use crate::modes::hvt::image::ImageError;
use crate::modes::hvt::layout::LayoutError;
use crate::modes::hvt::manifest::{DeviceKind, ManifestError};
use crate::modes::hvt::tender::TenderError;
use alloc::string::String;

/// Why a unikernel could not be made ready, or not be run.
#[derive(Debug, thiserror::Error)]
pub enum HvtError {
    /// The description names no image.
    #[error("no unikernel is named: set `unikernel` in [vm.hvt], or `image` in [vm]")]
    NoImage,
    /// The host does not lend what it needs.
    #[error(transparent)]
    Lend(#[from] LendError),
    /// The image is refused.
    #[error("{path}: {error}")]
    Image {
        /// Its name.
        path: String,
        /// Why.
        error: ImageError,
    },
    /// The manifest of a file of its own is refused.
    #[error("manifest {path}: {error}; give a manifest in binary form, or \"auto\"")]
    Manifest {
        /// Its name.
        path: String,
        /// Why.
        error: ManifestError,
    },
    /// A resource is for a device that the manifest does not have.
    #[error("resource not declared in manifest: {kind} '{name}'; declared are: {declared}")]
    NotDeclared {
        /// The device's name.
        name: String,
        /// Its type.
        kind: DeviceKind,
        /// The devices of that type that there are.
        declared: String,
    },
    /// There are more resources of a type than devices.
    #[error("one {0} resource is left over: the manifest has no further device of that type")]
    LeftOver(DeviceKind),
    /// A device has no resource.
    #[error("device '{name}' of type {kind} declared but not attached: add a resource for it")]
    NotAttached {
        /// The device's name.
        name: String,
        /// Its type.
        kind: DeviceKind,
    },
    /// A resource does not do for its device.
    #[error("{0}")]
    Attach(#[from] AttachError),
    /// Too much memory.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The command line is refused.
    #[error(transparent)]
    Cmdline(#[from] CmdlineError),
    /// The tender or the backend failed.
    #[error(transparent)]
    Tender(#[from] TenderError),
    /// It has run to its end.
    #[error("the unikernel has ended and cannot go on: create it again")]
    Over,
}
