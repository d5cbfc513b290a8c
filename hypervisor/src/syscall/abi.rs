//! The structures that cross the boundary. No padding, no pointers; reserved fields are 0.

use crate::mode::{ModeKind, VcpuExit, VmInfo};
use crate::vm::State;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

bitflags::bitflags! {
    /// Modes that have a backend; the result of query_modes.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct ModeFlags: u32 {
        /// [`ModeKind::Type1`].
        const TYPE1 = 1;
        /// [`ModeKind::VirtIO`].
        const VIRTIO = 2;
        /// [`ModeKind::Hvt`].
        const HVT = 4;
    }
}

impl From<ModeKind> for ModeFlags {
    fn from(mode: ModeKind) -> Self {
        match mode {
            ModeKind::Type1 => Self::TYPE1,
            ModeKind::VirtIO => Self::VIRTIO,
            ModeKind::Hvt => Self::HVT,
        }
    }
}

/// A mode's number: 1, 2, 3 in the order of [`ModeKind::ALL`]; 0 is "find out".
pub const fn mode_number(mode: Option<ModeKind>) -> u32 {
    match mode {
        None => 0,
        Some(ModeKind::Type1) => 1,
        Some(ModeKind::VirtIO) => 2,
        Some(ModeKind::Hvt) => 3,
    }
}

/// `VmConfig` of the proposal. It is followed by [`RawVmConfig::entries`] of [`RawEntry`],
/// [`RawVmConfig::cpus`] numbers of CPUs of 32 bits each, then the image's name, the manifest's name and the command line, without terminators.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RawVmConfig {
    /// [`mode_number`].
    pub mode: u32,
    /// vCPUs.
    pub num_vcpus: u32,
    /// RAM in bytes.
    pub memory_size: u64,
    /// Name; UTF-8, filled up with zero bytes, of which there is one at least.
    pub name: [u8; 64],
    /// What only the mode knows.
    pub mode_config: RawModeConfig,
    /// How many [`RawEntry`] follow.
    pub entries: u32,
    /// Bytes of the image's name; 0 is none.
    pub image_length: u32,
    /// Bytes of the manifest's name (HVT); 0 is the one in the image.
    pub manifest_length: u32,
    /// Bytes of the command line (HVT, Type 1).
    pub cmdline_length: u32,
    /// How many CPUs follow: one for each vCPU, which it is pinned to, or 0.
    pub cpus: u32,
    /// 0.
    pub reserved: u32,
}

/// `ModeSpecificConfig` of the proposal: `kind` says which mode it is for and so what the other
/// fields mean.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RawModeConfig {
    /// [`mode_number`] of its mode; 0: all defaults, and all other fields 0.
    pub kind: u32,
    /// Type 1: 0 what there is, 1 VMX, 2 SVM, 3 EL2, 4 H-extension. VirtIO: transport, 0 PCI,
    /// 1 MMIO. HVT: 0.
    pub choice: u32,
    /// Type 1: bit 0, nested; bit 1, no console; bit 2, debug
    /// ports. HVT: bit 0, no network ring. VirtIO: 0.
    pub flags: u32,
    /// Type 1: the frequency of the guest's TSC in kHz, 0 the host's. Else 0.
    pub tsc_khz: u32,
}

/// A resource (HVT), a device (VirtIO), or a disk, network or image (Type 1).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RawEntry {
    /// 1 block, 2 network; with VirtIO also 3 console, 4 file system, 5 GPU; with Type 1 also
    /// 6 kernel, 7 initial RAM disk, 8 firmware, each once; 9 module; 10 a piece of the text of
    /// the module before it, in `source`.
    pub kind: u32,
    /// Bit 0: `mac` is given (networks). Bit 1: read-only (VirtIO and Type 1 block).
    pub flags: u32,
    /// Bytes of a sector (HVT block); else 0.
    pub sector_size: u32,
    /// Hardware address.
    pub mac: [u8; 6],
    /// 0.
    pub reserved: [u8; 2],
    /// HVT: the device's name in the manifest. VirtIO file system: its tag. As
    /// [`RawVmConfig::name`]; empty is none.
    pub name: [u8; 68],
    /// Path or interface. As [`RawVmConfig::name`]; empty is none.
    pub source: [u8; 256],
}

/// What is known of a VM.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RawVmInfo {
    /// Its number.
    pub id: u32,
    /// [`mode_number`].
    pub mode: u32,
    /// 0 created, 1 running, 2 stopped, 3 destroyed.
    pub state: u32,
    /// vCPUs.
    pub num_vcpus: u32,
    /// RAM in bytes.
    pub memory_size: u64,
    /// Nanoseconds for which it ran; without the present run.
    pub ran_ns: u64,
    /// Exits.
    pub exits: u64,
    /// Name; filled up with zero bytes.
    pub name: [u8; 64],
}

impl From<&VmInfo> for RawVmInfo {
    fn from(info: &VmInfo) -> Self {
        let snapshot = &info.snapshot;
        let state = match snapshot.state {
            State::Created => 0,
            State::Running => 1,
            State::Stopped => 2,
            State::Destroyed => 3,
        };
        Self {
            id: info.id.get(),
            mode: mode_number(Some(info.mode)),
            state,
            num_vcpus: snapshot.vcpus,
            memory_size: snapshot.memory,
            ran_ns: snapshot.ran_ns,
            exits: snapshot.exits.total(),
            name: text(&info.name),
        }
    }
}

/// How vcpu_run ended.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RawExit {
    /// 0 the guest ended, 1 it was ended for what it did, 2 it was stopped.
    pub kind: u32,
    /// Its status, where it ended.
    pub status: i32,
    /// Guest address of the hint that it left, or 0.
    pub cookie: u64,
    /// One line for a person, where it was ended; filled up with zero bytes.
    pub line: [u8; 176],
}

impl From<&VcpuExit> for RawExit {
    fn from(exit: &VcpuExit) -> Self {
        let none = Self { kind: 2, status: 0, cookie: 0, line: [0; 176] };
        match exit {
            VcpuExit::Exit { status, cookie } => {
                Self { kind: 0, status: *status, cookie: cookie.map_or(0, |gpa| gpa.0), ..none }
            }
            VcpuExit::Fault(line) => Self { kind: 1, line: text(line), ..none },
            VcpuExit::Interrupted => none,
        }
    }
}

/// What a guest may do with memory.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RawPerms {
    /// The bits of [`crate::memory::Perms`].
    pub bits: u32,
}

/// A text in a field: cut at a character where it is too long, with one zero byte at least.
pub(super) fn text<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    let mut end = text.len().min(N - 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    field[..end].copy_from_slice(&text.as_bytes()[..end]);
    field
}
