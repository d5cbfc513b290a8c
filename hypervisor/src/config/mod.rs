//! What a VM is asked to be: [`VmConfig`] and its parts, which the TOML file ([`mod@file`]) and the
//! system calls ([`crate::syscall`]) both become.
//!
//! Order: fill a [`VmConfig`] (or read one with [`VmConfig::from_toml`]), find its mode
//! ([`crate::mode::Hypervisor::resolve`]), then [`VmConfig::validate`] for that mode, which every
//! mode's `create_vm` calls itself. Keys and defaults are those of docs/config.md; the form of the
//! file is that of the proposal's configuration examples.

mod error;
#[cfg(feature = "toml")]
pub mod file;
mod hvt;
mod nearest;
mod size;
mod type1;
mod validate;
mod virtio;

pub use error::{ConfigError, Place, Problem};
pub use hvt::{DEFAULT_SECTOR_SIZE, HvtConfig, HvtResource, ManifestSource, ResourceKind};
pub use nearest::nearest;
pub use size::{Bytes, SizeError, parse_size};
pub use type1::{Type1Config, Type1Console, Type1Disk, Type1Module, Type1Net, Virtualization};
pub use virtio::{Transport, VirtioConfig, VirtioDevice, VirtioDeviceKind};

use crate::mode::ModeKind;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// Bytes in a VM's name: the system calls carry 64 with a terminating zero.
pub const NAME_LENGTHS: RangeInclusive<usize> = 1..=63;
/// vCPUs of a VM, before its mode and backend have their say.
pub const VCPU_COUNTS: RangeInclusive<u32> = 1..=255;
/// Numbers of CPUs that vCPUs can be pinned to, before the machine has its say: what Linux's
/// `cpu_set_t` holds.
pub const CPU_NUMBERS: RangeInclusive<u32> = 0..=1023;
/// Bytes of a VM's memory, before its mode and backend have their say.
pub const MEMORY_SIZES: RangeInclusive<u64> = PAGE_SIZE..=1 << 44;
/// What a VM's memory size must be a multiple of.
pub const PAGE_SIZE: u64 = 4096;
/// Memory of a VM that asks for none: 512 MiB, as with Solo5's tender.
pub const DEFAULT_MEMORY: u64 = 512 << 20;

/// What holds for all VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HypervisorConfig {
    /// The mode of a VM that names none and whose image tells none. Default: HVT.
    pub default_mode: ModeKind,
}

impl Default for HypervisorConfig {
    fn default() -> Self {
        Self { default_mode: ModeKind::Hvt }
    }
}

/// What one VM is asked to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmConfig {
    /// Its name, for people; see [`NAME_LENGTHS`].
    pub name: String,
    /// Its mode, where it is named. `None`: found by its image, else the default.
    pub mode: Option<ModeKind>,
    /// How many vCPUs; see [`VCPU_COUNTS`]. Default: 1.
    pub vcpus: u32,
    /// The CPU of each vCPU, by its number: vCPU `n` runs on `cpus[n]` and nowhere else; see
    /// [`CPU_NUMBERS`]. Several may share one. Default (empty): each runs wherever there is room.
    pub cpus: Vec<u32>,
    /// RAM in bytes; see [`MEMORY_SIZES`]. Default: [`DEFAULT_MEMORY`].
    pub memory: u64,
    /// What it boots, as the host names it: a path, a descriptor. Default: none.
    pub image: Option<String>,
    /// What only its mode knows.
    pub mode_config: ModeSpecificConfig,
}

impl VmConfig {
    /// A VM of this name with the default of everything else.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            mode: None,
            vcpus: 1,
            cpus: Vec::new(),
            memory: DEFAULT_MEMORY,
            image: None,
            mode_config: ModeSpecificConfig::None,
        }
    }

    /// The mode that the description itself names: by `mode`, else by its mode's own part.
    pub fn explicit_mode(&self) -> Option<ModeKind> {
        self.mode.or_else(|| self.mode_config.mode())
    }

    /// What it boots, wherever that is written: `vm.image`, `vm.hvt.unikernel` or
    /// `vm.type1.kernel`.
    pub fn boot_image(&self) -> Option<&str> {
        let own = match &self.mode_config {
            ModeSpecificConfig::Hvt(hvt) => hvt.unikernel.as_deref(),
            ModeSpecificConfig::Type1(type1) => type1.kernel.as_deref(),
            _ => None,
        };
        own.or(self.image.as_deref())
    }

    /// The CPU that a vCPU is pinned to, if it is.
    pub fn cpu_of(&self, vcpu: u32) -> Option<u32> {
        self.cpus.get(usize::try_from(vcpu).ok()?).copied()
    }

    /// The part of HVT mode, or its defaults where the description has none.
    pub fn hvt(&self) -> HvtConfig {
        match &self.mode_config {
            ModeSpecificConfig::Hvt(hvt) => hvt.clone(),
            _ => HvtConfig::default(),
        }
    }

    /// The part of Type 1 mode, or its defaults where the description has none.
    pub fn type1(&self) -> Type1Config {
        match &self.mode_config {
            ModeSpecificConfig::Type1(type1) => type1.clone(),
            _ => Type1Config::default(),
        }
    }
}

/// The part of a [`VmConfig`] that only one mode knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ModeSpecificConfig {
    /// All defaults, of whichever mode it will be.
    #[default]
    None,
    /// `[vm.type1]`.
    Type1(Type1Config),
    /// `[vm.virtio]`.
    VirtIO(VirtioConfig),
    /// `[vm.hvt]`.
    Hvt(HvtConfig),
}

impl ModeSpecificConfig {
    /// The mode it belongs to.
    pub fn mode(&self) -> Option<ModeKind> {
        match self {
            Self::None => None,
            Self::Type1(_) => Some(ModeKind::Type1),
            Self::VirtIO(_) => Some(ModeKind::VirtIO),
            Self::Hvt(_) => Some(ModeKind::Hvt),
        }
    }
}

/// What one vCPU is asked to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VcpuConfig {
    /// Its number within the VM, from 0, below the VM's `vcpus`.
    pub index: u32,
}
