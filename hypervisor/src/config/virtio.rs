//! `[vm.virtio]`: what only VirtIO mode knows.

use alloc::string::String;
use alloc::vec::Vec;

/// The part of a [`super::VmConfig`] for paravirtualization.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VirtioConfig {
    /// How devices are found by the guest. Default: PCI.
    pub transport: Transport,
    /// Its devices, in the order in which the guest finds them. Default: none; at most
    /// [`VirtioConfig::MAX_DEVICES`].
    pub devices: Vec<VirtioDevice>,
}

impl VirtioConfig {
    /// Devices of one VM: what a PCI bus has room for beside its host bridge.
    pub const MAX_DEVICES: usize = 31;
}

/// VIRTIO 1.3 §4: the transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// VIRTIO 1.3 §4.1.
    #[default]
    Pci,
    /// VIRTIO 1.3 §4.2.
    Mmio,
}

impl Transport {
    /// Every one, with its name in the file.
    pub const NAMES: [(&'static str, Self); 2] = [("pci", Self::Pci), ("mmio", Self::Mmio)];
}

/// One device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VirtioDevice {
    /// virtio-net.
    Net {
        /// The host's interface. Default: the host chooses.
        interface: Option<String>,
        /// The guest's hardware address. Default: made up.
        mac: Option<[u8; 6]>,
    },
    /// virtio-blk.
    Blk {
        /// The disk image.
        path: String,
        /// Whether the guest may only read it. Default: no.
        read_only: bool,
    },
    /// virtio-console.
    Console,
    /// virtio-fs.
    Fs {
        /// The directory that is shown to the guest.
        path: String,
        /// The name by which the guest mounts it; 1 to 36 bytes.
        tag: String,
    },
    /// virtio-gpu.
    Gpu,
}

/// The kinds of [`VirtioDevice`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VirtioDeviceKind {
    /// virtio-net.
    Net,
    /// virtio-blk.
    Blk,
    /// virtio-console.
    Console,
    /// virtio-fs.
    Fs,
    /// virtio-gpu.
    Gpu,
}

impl VirtioDeviceKind {
    /// Every one, with its `type` in the file.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("net", Self::Net),
        ("blk", Self::Blk),
        ("console", Self::Console),
        ("fs", Self::Fs),
        ("gpu", Self::Gpu),
    ];

    /// The `driver` that the guest needs for it: the only one that may be named.
    pub const fn driver(self) -> &'static str {
        match self {
            Self::Net => "virtio-net",
            Self::Blk => "virtio-blk",
            Self::Console => "virtio-console",
            Self::Fs => "virtio-fs",
            Self::Gpu => "virtio-gpu",
        }
    }
}
