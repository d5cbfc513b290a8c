//! The two Solo5 notes and the interpreter's name of an executable, as constants of its binary.
//!
//! Implements Solo5 v0.12.1 `include/elf_abi.h` (ABI1), `include/mft_abi.h` (MFT1). Only
//! [`manifest!`](crate::manifest!) uses what is public here.

/// Longest name of a device in bytes.
const NAME_MAX: usize = 67;
/// Most devices of a manifest; one more entry is reserved.
const DEVICES_MAX: usize = 63;
const MFT1: u32 = u32::from_le_bytes(*b"MFT1");
const ABI1: u32 = u32::from_le_bytes(*b"ABI1");
const TARGET_HVT: u32 = 1;
const ABI_VERSION: u32 = if cfg!(feature = "abi1") { 1 } else { 2 };

/// A device that the unikernel wants.
#[derive(Debug, Clone, Copy)]
pub struct Device {
    kind: u32,
    name: &'static str,
}

/// A block device, `MFT_DEV_BLOCK_BASIC`.
pub const fn block(name: &'static str) -> Device {
    Device { kind: crate::device::Kind::Block as u32, name }
}

/// A network, `MFT_DEV_NET_BASIC`.
pub const fn net(name: &'static str) -> Device {
    Device { kind: crate::device::Kind::Net as u32, name }
}

/// `struct mft_entry`; the tender fills in what is zero here. In a note it is aligned to 4 bytes,
/// so its 64-bit fields are pairs.
#[repr(C)]
pub struct Entry {
    name: [u8; NAME_MAX + 1],
    kind: u32,
    properties: [u32; 4],
    backing: [u32; 2],
    attached: [u8; 8],
}

#[repr(C)]
struct NoteHeader {
    namesz: u32,
    descsz: u32,
    kind: u32,
    name: [u8; 8],
}

/// The manifest's note, with `N` entries.
#[repr(C)]
pub struct ManifestNote<const N: usize> {
    header: NoteHeader,
    /// Aligns what follows to 8 bytes of the file; counts as a part of the descriptor.
    padding: u32,
    version: u32,
    entries: u32,
    e: [Entry; N],
}

/// The ABI's note.
#[repr(C)]
pub struct AbiNote {
    header: NoteHeader,
    target: u32,
    version: u32,
    reserved: [u32; 2],
}

/// The note that makes OpenBSD's kernel look at the interpreter's name.
#[repr(C)]
pub struct OpenBsdNote {
    header: NoteHeader,
    data: u32,
}

/// See [`AbiNote`].
pub const ABI_NOTE: AbiNote = AbiNote {
    header: NoteHeader { namesz: 6, descsz: 16, kind: ABI1, name: *b"Solo5\0\0\0" },
    target: TARGET_HVT,
    version: ABI_VERSION,
    reserved: [0; 2],
};

/// See [`OpenBsdNote`].
pub const OPENBSD_NOTE: OpenBsdNote = OpenBsdNote {
    header: NoteHeader { namesz: 8, descsz: 4, kind: 1, name: *b"OpenBSD\0" },
    data: 0,
};

/// An interpreter that cannot exist: its name ends in a slash.
pub const INTERPRETER: [u8; 24] = *b"/nonexistent/solo5/\0\0\0\0\0";

impl<const N: usize> ManifestNote<N> {
    /// The note for these devices; `N` is their number plus one.
    #[allow(clippy::cast_possible_truncation, reason = "at most 64 entries")]
    pub const fn new(devices: &[Device]) -> Self {
        assert!(devices.len() <= DEVICES_MAX, "a manifest has at most 63 devices");
        assert!(N == devices.len() + 1, "one entry more than devices");
        let mut e = [const { Entry::new(1 << 30, "") }; N];
        let mut i = 0;
        while i < devices.len() {
            check_name(devices[i].name);
            check_unique(devices, i);
            e[i + 1] = Entry::new(devices[i].kind, devices[i].name);
            i += 1;
        }
        let descsz = (size_of::<Self>() - size_of::<NoteHeader>()) as u32;
        Self {
            header: NoteHeader { namesz: 6, descsz, kind: MFT1, name: *b"Solo5\0\0\0" },
            padding: 0,
            version: 1,
            entries: N as u32,
            e,
        }
    }
}

impl Entry {
    const fn new(kind: u32, name: &str) -> Self {
        let mut bytes = [0; NAME_MAX + 1];
        let mut i = 0;
        while i < name.len() {
            bytes[i] = name.as_bytes()[i];
            i += 1;
        }
        Self { name: bytes, kind, properties: [0; 4], backing: [0; 2], attached: [0; 8] }
    }
}

const fn check_name(name: &str) {
    assert!(!name.is_empty(), "a device's name is empty");
    assert!(name.len() <= NAME_MAX, "a device's name has more than 67 characters");
    let mut i = 0;
    while i < name.len() {
        assert!(
            name.as_bytes()[i].is_ascii_alphanumeric(),
            "a device's name has characters other than A-Z, a-z and 0-9"
        );
        i += 1;
    }
}

/// A tender attaches by name only, so two devices must not share one.
const fn check_unique(devices: &[Device], index: usize) {
    let mut i = 0;
    while i < index {
        assert!(
            !same(devices[i].name.as_bytes(), devices[index].name.as_bytes()),
            "two devices have the same name"
        );
        i += 1;
    }
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// Names the unikernel's devices and marks the executable as one for Solo5's hvt.
///
/// `manifest! { block "storage"; net "service0" }`; `manifest! {}` if there are none. Names have 1
/// to 67 letters and digits, there are at most 63: anything else does not compile. Use it once, in
/// the binary.
#[macro_export]
macro_rules! manifest {
    ($($kind:ident $name:literal);* $(;)?) => {
        const _: () = {
            const DEVICES: &[$crate::manifest::Device] =
                &[$($crate::manifest::$kind($name)),*];
            #[used]
            #[unsafe(link_section = ".note.solo5.manifest")]
            static MANIFEST: $crate::manifest::ManifestNote<{ DEVICES.len() + 1 }> =
                $crate::manifest::ManifestNote::new(DEVICES);
            #[used]
            #[unsafe(link_section = ".note.solo5.abi")]
            static ABI: $crate::manifest::AbiNote = $crate::manifest::ABI_NOTE;
            #[used]
            #[unsafe(link_section = ".note.solo5.openbsd")]
            static OPENBSD: $crate::manifest::OpenBsdNote = $crate::manifest::OPENBSD_NOTE;
            #[used]
            #[unsafe(link_section = ".interp")]
            static INTERPRETER: [u8; 24] = $crate::manifest::INTERPRETER;
        };
    };
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
