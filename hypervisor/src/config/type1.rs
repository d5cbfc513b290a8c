//! `[vm.type1]`: what only Type 1 mode knows.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// The part of a [`super::VmConfig`] for full virtualization.
///
/// A VM boots its kernel, where it has one, else by its firmware. `vm.image` is taken for what it
/// is: a kernel, or a disk or CD image, which becomes the first disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Type1Config {
    /// The hardware extension to use. Default (`None`): the one that the machine has.
    pub virtualization: Option<Virtualization>,
    /// Whether the guest may itself be a hypervisor. Default: no.
    pub nested: bool,
    /// A kernel to boot directly: bzImage or ELF with a PVH note. Default: `vm.image`, if it is
    /// one.
    pub kernel: Option<String>,
    /// The kernel's initial RAM disk. Default: none.
    pub initrd: Option<String>,
    /// Modules of a multiboot or PVH kernel, behind `initrd`; at most
    /// [`Type1Config::MAX_MODULES`]. Default: none.
    pub modules: Vec<Type1Module>,
    /// The kernel's command line; at most [`Type1Config::MAX_CMDLINE`] bytes. Default: empty.
    pub cmdline: String,
    /// Firmware that boots the disks: SeaBIOS or OVMF. Default: none.
    pub firmware: Option<String>,
    /// x86_64: the frequency of the guest's TSC in kHz; see [`Type1Config::TSC_KHZ`]. Default
    /// (`None`): the host's.
    pub tsc_khz: Option<u32>,
    /// Disks, in the order in which the guest finds them; at most [`Type1Config::MAX_DEVICES`]
    /// together with the networks. Default: none.
    pub disks: Vec<Type1Disk>,
    /// Networks, in the order in which the guest finds them. Default: none.
    pub nets: Vec<Type1Net>,
    /// Where the first serial line leads. Default: to the VM's console.
    pub console: Type1Console,
    /// Whether there are ports for firmware and tests: 0x402 and 0xe9 write to the console, 0xf4
    /// ends the VM. Default: no.
    pub debug: bool,
}

impl Type1Config {
    /// Longest command line: Linux's on x86 (COMMAND_LINE_SIZE) without its terminating zero.
    pub const MAX_CMDLINE: usize = 2047;
    /// Most modules of a kernel, `initrd` not counted.
    pub const MAX_MODULES: usize = 16;
    /// Frequencies of a guest's TSC in kHz: 100 MHz to 100 GHz.
    pub const TSC_KHZ: RangeInclusive<u32> = 100_000..=100_000_000;
    /// Disks and networks of one VM: what a PCI bus has room for beside its host bridge.
    pub const MAX_DEVICES: usize = 31;
}

/// A module: a file that a kernel is given in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Type1Module {
    /// The file.
    pub path: String,
    /// The text that goes with it; at most [`Type1Config::MAX_CMDLINE`] bytes. Default: empty.
    pub cmdline: String,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Type1Disk {
    /// The disk image, or what else the host knows under this name.
    pub path: String,
    /// Whether the guest may only read it. Default: no.
    pub read_only: bool,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Type1Net {
    /// The host's interface. Default: the host chooses.
    pub interface: Option<String>,
    /// The guest's hardware address. Default: the host chooses.
    pub mac: Option<[u8; 6]>,
}

/// Where the first serial line leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Type1Console {
    /// To the VM's console.
    #[default]
    Serial,
    /// Nowhere: there is no serial line.
    None,
}

impl Type1Console {
    /// Every one, with its name in the file.
    pub const NAMES: [(&'static str, Self); 2] = [("serial", Self::Serial), ("none", Self::None)];
}

/// Hardware virtualization, by its manual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Virtualization {
    /// Intel VMX.
    Vmx,
    /// AMD SVM.
    Svm,
    /// Arm EL2.
    El2,
    /// RISC-V H-extension.
    HExt,
}

impl Virtualization {
    /// Every one, with its name in the file.
    pub const NAMES: [(&'static str, Self); 4] =
        [("vmx", Self::Vmx), ("svm", Self::Svm), ("el2", Self::El2), ("h-ext", Self::HExt)];
}
