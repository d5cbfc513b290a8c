//! The manifest of a unikernel: the devices that it declares, and what is attached to them.
//!
//! Order: [`Manifest::parse`] the note's content, [`Manifest::find`] and attach every device,
//! check that [`Manifest::unattached`] is empty, hand [`Manifest::to_bytes`] to the guest. A
//! device's index is its handle in hypercalls.
//!
//! Source: Solo5 v0.12.1 `include/mft_abi.h`, `tenders/common/mft.c`. Accepted is what Solo5
//! accepts and could run: a device whose name or type no option can attach is refused at once.

use super::attach::{self, AttachError};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Most entries of a manifest, the reserved first one included.
pub const MAX_ENTRIES: usize = 64;
/// Most characters of a device's name.
pub const NAME_MAX: usize = 67;
/// Bytes of the largest manifest.
pub const MAX_BYTES: usize = size_of::<RawHead>() + MAX_ENTRIES * size_of::<RawEntry>();

const VERSION: u32 = 1;
const TYPE_BLOCK: u32 = 1;
const TYPE_NET: u32 = 2;
/// Types from here on are reserved; the first entry has exactly this one.
const RESERVED_FIRST: u32 = 1 << 30;

/// `struct mft` without its entries.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHead {
    version: U32,
    entries: U32,
}

/// `struct mft_entry` as C lays it out for 64-bit machines. `host` is private to the tender.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawEntry {
    name: [u8; NAME_MAX + 1],
    kind: U32,
    properties: [u8; 16],
    host: [u8; 8],
    attached: u8,
    padding: [u8; 7],
}

const _: () = assert!(size_of::<RawEntry>() == 104);

/// Kinds of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// A block device.
    Block,
    /// A network.
    Net,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Block => "BLOCK_BASIC",
            Self::Net => "NET_BASIC",
        })
    }
}

/// What a device is attached to, as the guest is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// A block device.
    Block {
        /// Size in bytes, a multiple of `block_size`, at least one.
        capacity: u64,
        /// Size of a block in bytes.
        block_size: u16,
    },
    /// A network.
    Net {
        /// Hardware address of the guest's side.
        mac: [u8; 6],
        /// Largest payload of a frame in bytes.
        mtu: u16,
    },
}

/// A device of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name: ASCII letters and digits, 1 to [`NAME_MAX`].
    pub name: String,
    /// What it is.
    pub kind: DeviceKind,
    /// What it is attached to, once it is.
    pub attachment: Option<Attachment>,
}

/// An entry: a device, or a reserved one with its type.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Reserved(u32),
    Device(Device),
}

/// The devices of a unikernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    entries: Vec<Entry>,
}

/// Why a manifest is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Of another version.
    #[error("its version is {0}, not 1")]
    Version(u32),
    /// No entries, or too many.
    #[error("it has {0} entries, not 1 to {MAX_ENTRIES}")]
    Entries(u32),
    /// Its size is not what its number of entries makes it.
    #[error("it has {found} bytes where {wanted} are needed")]
    Size {
        /// The note's.
        found: usize,
        /// What would be right.
        wanted: usize,
    },
    /// The first entry is not the reserved one.
    #[error("its first entry is not the reserved one")]
    NoReserved,
    /// A name without an end.
    #[error("the name of entry {0} is not terminated")]
    Unterminated(usize),
    /// A device that claims to be attached already.
    #[error("entry {0} is marked as attached")]
    Attached(usize),
    /// A kind of device that nobody can attach.
    #[error("entry {index} is of the unknown type {kind}")]
    UnknownType {
        /// Its index.
        index: usize,
        /// Its type.
        kind: u32,
    },
    /// A name that no option can spell.
    #[error("the name of entry {0} is not made of 1 to {NAME_MAX} ASCII letters and digits")]
    Name(usize),
    /// Two devices of a kind that cannot be told apart.
    #[error("entries {0} and {1} have the same name and type")]
    Duplicate(usize, usize),
}

impl Manifest {
    /// A manifest without devices.
    pub fn empty() -> Self {
        Self { entries: [Entry::Reserved(RESERVED_FIRST)].into() }
    }

    /// Reads a note's content.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let wanted = size_of::<RawHead>();
        let size = |wanted| ManifestError::Size { found: bytes.len(), wanted };
        let (head, rest) = RawHead::ref_from_prefix(bytes).map_err(|_| size(wanted))?;
        if head.version.get() != VERSION {
            return Err(ManifestError::Version(head.version.get()));
        }
        let count = head.entries.get() as usize;
        if count == 0 || count > MAX_ENTRIES {
            return Err(ManifestError::Entries(head.entries.get()));
        }
        let raw = <[RawEntry]>::ref_from_bytes(rest).ok().filter(|raw| raw.len() == count);
        let raw = raw.ok_or(size(wanted + count * size_of::<RawEntry>()))?;
        if raw.first().is_none_or(|e| e.kind.get() != RESERVED_FIRST || !name(e).is_empty()) {
            return Err(ManifestError::NoReserved);
        }
        let mut manifest = Self { entries: Vec::with_capacity(count) };
        for (index, raw) in raw.iter().enumerate() {
            let entry = parse_entry(index, raw)?;
            manifest.check_unique(index, &entry)?;
            manifest.entries.push(entry);
        }
        Ok(manifest)
    }

    fn check_unique(&self, index: usize, entry: &Entry) -> Result<(), ManifestError> {
        let Entry::Device(device) = entry else { return Ok(()) };
        match self.find(&device.name, device.kind) {
            Some(first) => Err(ManifestError::Duplicate(first, index)),
            None => Ok(()),
        }
    }

    /// The number of entries, the reserved ones included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Never: there is always the reserved first entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The device with this index; `None` for reserved entries and beyond the end.
    pub fn device(&self, index: usize) -> Option<&Device> {
        match self.entries.get(index)? {
            Entry::Device(device) => Some(device),
            Entry::Reserved(_) => None,
        }
    }

    /// All devices, each with its index.
    pub fn devices(&self) -> impl Iterator<Item = (usize, &Device)> + '_ {
        (0..self.entries.len()).filter_map(|index| Some((index, self.device(index)?)))
    }

    /// The devices that are not attached: the guest must not start while there is one. The
    /// message for a person is [`NotAttached`]'s.
    pub fn unattached(&self) -> impl Iterator<Item = NotAttached<'_>> + '_ {
        self.devices().map(|(_, device)| device).filter(|d| d.attachment.is_none()).map(NotAttached)
    }

    /// Whether a network is attached.
    pub fn has_net(&self) -> bool {
        self.devices().any(|(_, d)| matches!(d.attachment, Some(Attachment::Net { .. })))
    }

    /// The index of the device with this name and kind.
    pub fn find(&self, name: &str, kind: DeviceKind) -> Option<usize> {
        self.devices().find(|(_, d)| d.kind == kind && d.name == name).map(|(index, _)| index)
    }

    /// Attaches a store of `capacity` bytes to block device `index`, with blocks of `block_size`
    /// bytes (512 if it is `None`), and returns the block size. Again replaces the earlier one.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn attach_block(
        &mut self,
        index: usize,
        capacity: u64,
        block_size: Option<u64>,
    ) -> Result<u16, AttachError> {
        let device = self.device_mut(index, DeviceKind::Block)?;
        let block_size = attach::check_block(&device.name, capacity, block_size)?;
        device.attachment = Some(Attachment::Block { capacity, block_size });
        Ok(block_size)
    }

    /// Attaches a network to network device `index`. Again replaces the earlier one.
    ///
    /// # Errors
    /// [`AttachError::NoSuchDevice`].
    pub fn attach_net(&mut self, index: usize, mac: [u8; 6], mtu: u16) -> Result<(), AttachError> {
        let device = self.device_mut(index, DeviceKind::Net)?;
        device.attachment = Some(Attachment::Net { mac, mtu });
        Ok(())
    }

    fn device_mut(&mut self, index: usize, kind: DeviceKind) -> Result<&mut Device, AttachError> {
        match self.entries.get_mut(index) {
            Some(Entry::Device(device)) if device.kind == kind => Ok(device),
            _ => Err(AttachError::NoSuchDevice { index, kind }),
        }
    }

    /// The manifest as the guest reads it. Nothing of the host is in it, nor what the file had
    /// where C leaves gaps.
    pub fn to_bytes(&self) -> Vec<u8> {
        // At most 64, so it always fits.
        let count = u32::try_from(self.entries.len()).unwrap_or_default();
        let head = RawHead { version: VERSION.into(), entries: count.into() };
        let mut bytes = Vec::with_capacity(MAX_BYTES);
        bytes.extend_from_slice(head.as_bytes());
        for entry in &self.entries {
            bytes.extend_from_slice(raw_entry(entry).as_bytes());
        }
        bytes
    }
}

/// A device that is declared but not attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAttached<'a>(pub &'a Device);

impl fmt::Display for NotAttached<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Device { name, kind, .. } = self.0;
        write!(f, "Device '{name}' of type {kind} declared but not attached.")
    }
}

/// An entry's name up to its terminator.
fn name(raw: &RawEntry) -> &[u8] {
    raw.name.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn parse_entry(index: usize, raw: &RawEntry) -> Result<Entry, ManifestError> {
    if raw.name[NAME_MAX] != 0 {
        return Err(ManifestError::Unterminated(index));
    }
    if raw.attached != 0 {
        return Err(ManifestError::Attached(index));
    }
    let kind = match raw.kind.get() {
        reserved if reserved >= RESERVED_FIRST => return Ok(Entry::Reserved(reserved)),
        TYPE_BLOCK => DeviceKind::Block,
        TYPE_NET => DeviceKind::Net,
        kind => return Err(ManifestError::UnknownType { index, kind }),
    };
    let name = core::str::from_utf8(name(raw)).map_err(|_| ManifestError::Name(index))?;
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(ManifestError::Name(index));
    }
    Ok(Entry::Device(Device { name: name.into(), kind, attachment: None }))
}

fn raw_entry(entry: &Entry) -> RawEntry {
    let mut raw = RawEntry::new_zeroed();
    let device = match entry {
        Entry::Reserved(kind) => {
            raw.kind = (*kind).into();
            return raw;
        }
        Entry::Device(device) => device,
    };
    for (to, from) in raw.name.iter_mut().zip(device.name.bytes()) {
        *to = from;
    }
    raw.kind = match device.kind {
        DeviceKind::Block => TYPE_BLOCK.into(),
        DeviceKind::Net => TYPE_NET.into(),
    };
    if let Some(attachment) = device.attachment {
        raw.attached = 1;
        raw.properties = raw_properties(attachment);
    }
    raw
}

/// `struct mft_block_basic` and `struct mft_net_basic`.
fn raw_properties(attachment: Attachment) -> [u8; 16] {
    let mut raw = [0; 16];
    match attachment {
        Attachment::Block { capacity, block_size } => {
            raw[..8].copy_from_slice(&capacity.to_le_bytes());
            raw[8..10].copy_from_slice(&block_size.to_le_bytes());
        }
        Attachment::Net { mac, mtu } => {
            raw[..6].copy_from_slice(&mac);
            raw[6..8].copy_from_slice(&mtu.to_le_bytes());
        }
    }
    raw
}

#[cfg(test)]
mod tests;
