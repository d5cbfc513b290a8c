//! `[vm.hvt]`: what only HVT mode knows.

use alloc::string::String;
use alloc::vec::Vec;

/// Sector size of a block device that names none, in bytes, as with Solo5's tender.
pub const DEFAULT_SECTOR_SIZE: u32 = 512;

/// The part of a [`super::VmConfig`] for Solo5 unikernels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HvtConfig {
    /// The unikernel; the same as `vm.image`, of which only one may be given.
    pub unikernel: Option<String>,
    /// Where the manifest is. Default: in the unikernel.
    pub manifest: ManifestSource,
    /// What is attached to the manifest's devices. Default: nothing; at most
    /// [`HvtConfig::MAX_RESOURCES`].
    pub resources: Vec<HvtResource>,
    /// The guest's command line, at most [`HvtConfig::MAX_CMDLINE`] bytes. Default: empty.
    pub cmdline: String,
    /// Whether network ring I/O is offered to the guest. Default: yes.
    pub net_ring: bool,
}

impl HvtConfig {
    /// Devices of a manifest: 64, of which the first is reserved (Solo5 `mft_abi.h`).
    pub const MAX_RESOURCES: usize = 63;
    /// Bytes of a command line: 8,192 with its terminator (Solo5 `hvt_abi.h`).
    pub const MAX_CMDLINE: usize = 8191;
    /// Bytes of a device's name (Solo5 `mft_abi.h`).
    pub const MAX_NAME: usize = 67;
}

impl Default for HvtConfig {
    fn default() -> Self {
        Self {
            unikernel: None,
            manifest: ManifestSource::Embedded,
            resources: Vec::new(),
            cmdline: String::new(),
            net_ring: true,
        }
    }
}

/// Where a unikernel's manifest is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ManifestSource {
    /// `"auto"`: in the unikernel's own note.
    #[default]
    Embedded,
    /// In this file.
    Path(String),
}

/// What is attached to one device of the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HvtResource {
    /// The device's name in the manifest. Default (`None`): the first device of the same type
    /// that no other resource has.
    pub name: Option<String>,
    /// What it is.
    pub kind: ResourceKind,
}

/// The kinds of [`HvtResource`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResourceKind {
    /// `type = "block"`.
    Block {
        /// The disk image.
        path: String,
        /// Bytes of a sector: a power of two from 512 to 32,768. Default: [`DEFAULT_SECTOR_SIZE`].
        sector_size: u32,
    },
    /// `type = "net"`.
    Net {
        /// The host's interface, in the host's own words, such as `tap0` or `@5`.
        interface: String,
        /// The guest's hardware address. Default: made up.
        mac: Option<[u8; 6]>,
    },
}

impl ResourceKind {
    /// Its `type` in the file and in a manifest.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Block { .. } => "block",
            Self::Net { .. } => "net",
        }
    }
}
