//! Why a machine could not be made ready.

use crate::detect::DetectError;
use crate::device::BusError;
use crate::mode::LendError;
use crate::modes::type1::boot::StartError;
use crate::modes::type1::boot::acpi::AcpiError;
use crate::modes::type1::boot::read::ReadError;
use crate::modes::type1::slots::SlotsFull;
use crate::vcpu::BackendError;
use alloc::boxed::Box;
use alloc::string::String;

/// Why a machine could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum Type1Error {
    /// The description names nothing that could start.
    #[error(
        "nothing to start: set `kernel` in [vm.type1] (or `image` in [vm]); or `firmware` for a disk: \
         bios-256k.bin of Debian's package seabios, or OVMF.fd of ovmf"
    )]
    NothingToStart,
    /// The host does not lend what it needs.
    #[error(transparent)]
    Lend(#[from] LendError),
    /// The host lends fewer vCPU threads than were asked for.
    #[error("the host lends {lent} vCPU threads of {asked}: ask for fewer vCPUs")]
    Threads {
        /// How many it lends.
        lent: usize,
        /// How many were asked for.
        asked: u32,
    },
    /// The image is none that is known.
    #[error("{name}: {error}")]
    Image {
        /// Its name.
        name: String,
        /// Why.
        error: Box<DetectError>,
    },
    /// More disks and networks than there are slots.
    #[error(transparent)]
    Slots(#[from] SlotsFull),
    /// A vCPU is asked for that cannot be.
    #[error("{0}")]
    Backend(#[from] BackendError),
    /// What is to start cannot.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A file could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The tables do not fit.
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    /// Two devices claim the same addresses.
    #[error(transparent)]
    Bus(#[from] BusError),
}
