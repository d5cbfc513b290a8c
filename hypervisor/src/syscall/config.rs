//! Between [`RawVmConfig`] and [`VmConfig`].

use super::CallError;
use super::abi::{RawEntry, RawModeConfig, RawVmConfig, mode_number, text};
use crate::config::{
    HvtConfig, HvtResource, ManifestSource, ModeSpecificConfig, ResourceKind, Transport,
    Type1Config, Type1Console, Type1Disk, Type1Module, Type1Net, VirtioConfig, VirtioDevice,
    VirtioDeviceKind, Virtualization, VmConfig,
};
use crate::mode::ModeKind;
use alloc::string::String;
use alloc::vec::Vec;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

const KINDS: [VirtioDeviceKind; 5] = [
    VirtioDeviceKind::Blk,
    VirtioDeviceKind::Net,
    VirtioDeviceKind::Console,
    VirtioDeviceKind::Fs,
    VirtioDeviceKind::Gpu,
];
const VIRTUALIZATIONS: [Option<Virtualization>; 5] = [
    None,
    Some(Virtualization::Vmx),
    Some(Virtualization::Svm),
    Some(Virtualization::El2),
    Some(Virtualization::HExt),
];
const HAS_MAC: u32 = 1;
const READ_ONLY: u32 = 2;
const NESTED: u32 = 1;
const NO_CONSOLE: u32 = 2;
const DEBUG: u32 = 4;
/// Entries of Type 1 mode that are neither disks nor networks.
const KERNEL: u32 = 6;
const INITRD: u32 = 7;
const FIRMWARE: u32 = 8;
const MODULE: u32 = 9;
/// A piece of the text of the module before it.
const MODULE_TEXT: u32 = 10;

/// Reads the input of vm_create, field by field. The rules of the values themselves are
/// [`VmConfig::validate`]'s.
///
/// # Errors
/// [`CallError::Input`], [`CallError::Reserved`], [`CallError::Value`], [`CallError::Text`].
pub fn decode(input: &[u8]) -> Result<VmConfig, CallError> {
    let short = |_| CallError::Input { found: input.len(), wanted: size_of::<RawVmConfig>() };
    let (raw, _) = RawVmConfig::read_from_prefix(input).map_err(short)?;
    zero("reserved", raw.reserved)?;
    let mut tail = tail(&raw, input)?;
    let entries = tail.take(entries_size::<RawEntry>(raw.entries))?;
    let cpus = tail.take(entries_size::<u32>(raw.cpus))?;
    let image = tail.text("image", raw.image_length)?;
    let manifest = tail.text("manifest", raw.manifest_length)?;
    let cmdline = tail.text("command line", raw.cmdline_length)?;
    let mut config = VmConfig::new(field("name", &raw.name)?);
    config.mode = mode("mode", raw.mode)?;
    config.vcpus = raw.num_vcpus;
    config.cpus = cpus.as_chunks().0.iter().map(|cpu| u32::from_ne_bytes(*cpu)).collect();
    config.memory = raw.memory_size;
    config.image = image;
    config.mode_config = mode_config(&raw.mode_config, entries)?;
    match &mut config.mode_config {
        ModeSpecificConfig::Hvt(hvt) => {
            hvt.manifest = manifest.map_or(ManifestSource::Embedded, ManifestSource::Path);
            hvt.cmdline = cmdline.unwrap_or_default();
        }
        _ if manifest.is_some() => return Err(CallError::Reserved("manifest length")),
        ModeSpecificConfig::Type1(type1) => type1.cmdline = cmdline.unwrap_or_default(),
        _ if cmdline.is_some() => return Err(CallError::Reserved("command line length")),
        _ => {}
    }
    Ok(config)
}

/// What follows the structure.
struct Tail<'a>(&'a [u8]);

fn tail<'a>(raw: &RawVmConfig, input: &'a [u8]) -> Result<Tail<'a>, CallError> {
    let lengths = [raw.image_length, raw.manifest_length, raw.cmdline_length].map(u64::from);
    let entries = u64::from(raw.entries) * size_of::<RawEntry>() as u64;
    let cpus = u64::from(raw.cpus) * size_of::<u32>() as u64;
    // Five numbers of 32 bits, two times small ones: no overflow.
    let wanted = size_of::<RawVmConfig>() as u64 + entries + cpus + lengths.iter().sum::<u64>();
    if input.len() as u64 != wanted {
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        return Err(CallError::Input { found: input.len(), wanted });
    }
    Ok(Tail(&input[size_of::<RawVmConfig>()..]))
}

fn entries_size<T>(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(size_of::<T>())
}

impl<'a> Tail<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], CallError> {
        let short = CallError::Input { found: self.0.len(), wanted: length };
        let (head, rest) = self.0.split_at_checked(length).ok_or(short)?;
        self.0 = rest;
        Ok(head)
    }

    fn text(&mut self, name: &'static str, length: u32) -> Result<Option<String>, CallError> {
        let bytes = self.take(usize::try_from(length).unwrap_or(usize::MAX))?;
        let text = core::str::from_utf8(bytes).map_err(|_| CallError::Text(name))?;
        if text.contains('\0') {
            return Err(CallError::Text(name));
        }
        Ok((!text.is_empty()).then(|| text.into()))
    }
}

/// A text in a field: ended by a zero byte, and nothing but zero bytes after it.
fn field(name: &'static str, bytes: &[u8]) -> Result<String, CallError> {
    let end = bytes.iter().position(|byte| *byte == 0).ok_or(CallError::Text(name))?;
    if bytes[end..].iter().any(|byte| *byte != 0) {
        return Err(CallError::Text(name));
    }
    let text = core::str::from_utf8(&bytes[..end]).map_err(|_| CallError::Text(name))?;
    Ok(text.into())
}

fn mode(field: &'static str, number: u32) -> Result<Option<ModeKind>, CallError> {
    let known = [None, Some(ModeKind::Type1), Some(ModeKind::VirtIO), Some(ModeKind::Hvt)];
    let wrong = CallError::Value { field, value: number.into() };
    known.into_iter().find(|mode| mode_number(*mode) == number).ok_or(wrong)
}

fn mode_config(raw: &RawModeConfig, entries: &[u8]) -> Result<ModeSpecificConfig, CallError> {
    let kind = mode("mode_config.kind", raw.kind)?;
    if kind != Some(ModeKind::Type1) {
        zero("mode_config.tsc_khz", raw.tsc_khz)?;
    }
    if kind.is_none() && !entries.is_empty() {
        return Err(CallError::Reserved("entry count"));
    }
    Ok(match kind {
        None => {
            zero("mode_config.choice", raw.choice)?;
            flags("mode_config.flags", raw.flags, 0)?;
            ModeSpecificConfig::None
        }
        Some(ModeKind::Type1) => {
            flags("mode_config.flags", raw.flags, NESTED | NO_CONSOLE | DEBUG)?;
            let mut type1 = Type1Config {
                virtualization: pick(&VIRTUALIZATIONS, raw.choice)?,
                nested: raw.flags & NESTED != 0,
                debug: raw.flags & DEBUG != 0,
                tsc_khz: Some(raw.tsc_khz).filter(|khz| *khz != 0),
                ..Type1Config::default()
            };
            if raw.flags & NO_CONSOLE != 0 {
                type1.console = Type1Console::None;
            }
            let parts = entries.chunks_exact(size_of::<RawEntry>());
            parts.map(entry).try_for_each(|raw| add_part(&mut type1, &raw?))?;
            ModeSpecificConfig::Type1(type1)
        }
        Some(ModeKind::VirtIO) => {
            flags("mode_config.flags", raw.flags, 0)?;
            let transport = pick(&Transport::NAMES, raw.choice)?.1;
            let devices = read_entries(entries, device)?;
            ModeSpecificConfig::VirtIO(VirtioConfig { transport, devices })
        }
        Some(ModeKind::Hvt) => {
            zero("mode_config.choice", raw.choice)?;
            flags("mode_config.flags", raw.flags, 1)?;
            let resources = read_entries(entries, resource)?;
            let net_ring = raw.flags == 0;
            ModeSpecificConfig::Hvt(HvtConfig { resources, net_ring, ..HvtConfig::default() })
        }
    })
}

fn pick<T: Copy>(choices: &[T], choice: u32) -> Result<T, CallError> {
    let index = usize::try_from(choice).unwrap_or(usize::MAX);
    let wrong = CallError::Value { field: "mode_config.choice", value: choice.into() };
    choices.get(index).copied().ok_or(wrong)
}

fn zero(name: &'static str, value: u32) -> Result<(), CallError> {
    if value == 0 { Ok(()) } else { Err(CallError::Reserved(name)) }
}

fn flags(field: &'static str, value: u32, known: u32) -> Result<(), CallError> {
    if value & !known == 0 { Ok(()) } else { Err(CallError::Value { field, value: value.into() }) }
}

fn read_entries<T>(
    bytes: &[u8],
    read: impl Fn(&RawEntry) -> Result<T, CallError>,
) -> Result<Vec<T>, CallError> {
    // No more is allocated than was passed: the caller has copied these bytes already.
    let chunks = bytes.chunks_exact(size_of::<RawEntry>());
    chunks.map(|chunk| read(&entry(chunk)?)).collect()
}

fn entry(chunk: &[u8]) -> Result<RawEntry, CallError> {
    let wanted = size_of::<RawEntry>();
    let wrong = |_| CallError::Input { found: chunk.len(), wanted };
    let raw = RawEntry::read_from_bytes(chunk).map_err(wrong)?;
    if raw.reserved != [0; 2] {
        return Err(CallError::Reserved("entry.reserved"));
    }
    if raw.flags & HAS_MAC == 0 && raw.mac != [0; 6] {
        return Err(CallError::Reserved("entry.mac"));
    }
    Ok(raw)
}

/// Fields that this kind of entry does not have are 0.
fn only(raw: &RawEntry, known: u32, has_name: bool, has_source: bool) -> Result<(), CallError> {
    flags("entry.flags", raw.flags, known)?;
    if !has_name && raw.name[0] != 0 {
        return Err(CallError::Reserved("entry.name"));
    }
    if !has_source && raw.source[0] != 0 {
        return Err(CallError::Reserved("entry.source"));
    }
    Ok(())
}

fn mac(raw: &RawEntry) -> Option<[u8; 6]> {
    (raw.flags & HAS_MAC != 0).then_some(raw.mac)
}

fn resource(raw: &RawEntry) -> Result<HvtResource, CallError> {
    let name = Some(field("entry.name", &raw.name)?).filter(|name| !name.is_empty());
    let source = field("entry.source", &raw.source)?;
    let kind = match raw.kind {
        1 => {
            only(raw, 0, true, true)?;
            ResourceKind::Block { path: source, sector_size: raw.sector_size }
        }
        2 => {
            only(raw, HAS_MAC, true, true)?;
            zero("entry.sector_size", raw.sector_size)?;
            ResourceKind::Net { interface: source, mac: mac(raw) }
        }
        kind => return Err(CallError::Value { field: "entry.kind", value: kind.into() }),
    };
    Ok(HvtResource { name, kind })
}

/// An entry of Type 1 mode: a disk, a network, or one of the images, each of which is there once.
fn add_part(type1: &mut Type1Config, raw: &RawEntry) -> Result<(), CallError> {
    zero("entry.sector_size", raw.sector_size)?;
    let source = field("entry.source", &raw.source)?;
    let image = match raw.kind {
        1 => {
            only(raw, READ_ONLY, false, true)?;
            type1.disks.push(Type1Disk { path: source, read_only: raw.flags != 0 });
            return Ok(());
        }
        2 => {
            only(raw, HAS_MAC, false, true)?;
            let interface = Some(source).filter(|name| !name.is_empty());
            type1.nets.push(Type1Net { interface, mac: mac(raw) });
            return Ok(());
        }
        MODULE => {
            only(raw, 0, false, true)?;
            type1.modules.push(Type1Module { path: source, cmdline: String::new() });
            return Ok(());
        }
        MODULE_TEXT => {
            only(raw, 0, false, true)?;
            let wrong = CallError::Value { field: "entry.kind", value: raw.kind.into() };
            type1.modules.last_mut().ok_or(wrong)?.cmdline.push_str(&source);
            return Ok(());
        }
        KERNEL => &mut type1.kernel,
        INITRD => &mut type1.initrd,
        FIRMWARE => &mut type1.firmware,
        kind => return Err(CallError::Value { field: "entry.kind", value: kind.into() }),
    };
    only(raw, 0, false, true)?;
    match image.replace(source) {
        None => Ok(()),
        Some(_) => Err(CallError::Value { field: "entry.kind", value: raw.kind.into() }),
    }
}

fn device(raw: &RawEntry) -> Result<VirtioDevice, CallError> {
    let wrong = CallError::Value { field: "entry.kind", value: raw.kind.into() };
    let index = usize::try_from(raw.kind).unwrap_or(usize::MAX).wrapping_sub(1);
    let kind = *KINDS.get(index).ok_or(wrong)?;
    zero("entry.sector_size", raw.sector_size)?;
    let name = field("entry.name", &raw.name)?;
    let source = field("entry.source", &raw.source)?;
    Ok(match kind {
        VirtioDeviceKind::Blk => {
            only(raw, READ_ONLY, false, true)?;
            VirtioDevice::Blk { path: source, read_only: raw.flags != 0 }
        }
        VirtioDeviceKind::Net => {
            only(raw, HAS_MAC, false, true)?;
            let interface = Some(source).filter(|name| !name.is_empty());
            VirtioDevice::Net { interface, mac: mac(raw) }
        }
        VirtioDeviceKind::Fs => {
            only(raw, 0, true, true)?;
            VirtioDevice::Fs { path: source, tag: name }
        }
        VirtioDeviceKind::Console => {
            only(raw, 0, false, false)?;
            VirtioDevice::Console
        }
        VirtioDeviceKind::Gpu => {
            only(raw, 0, false, false)?;
            VirtioDevice::Gpu
        }
    })
}

/// Writes the input of vm_create: the caller's side of [`decode`].
///
/// # Errors
/// [`CallError::Text`] if a text does not fit its field.
pub fn encode(config: &VmConfig) -> Result<Vec<u8>, CallError> {
    let mut raw = RawVmConfig {
        mode: mode_number(config.mode),
        num_vcpus: config.vcpus,
        memory_size: config.memory,
        name: fit("name", &config.name)?,
        mode_config: RawModeConfig {
            kind: mode_number(config.mode_config.mode()),
            ..RawModeConfig::default()
        },
        entries: 0,
        image_length: 0,
        manifest_length: 0,
        cmdline_length: 0,
        cpus: count("cpus", config.cpus.len())?,
        reserved: 0,
    };
    let (mut manifest, mut cmdline) = ("", "");
    let mut image = config.boot_image();
    let entries = match &config.mode_config {
        ModeSpecificConfig::None => Vec::new(),
        ModeSpecificConfig::Type1(type1) => {
            let choice = VIRTUALIZATIONS.iter().position(|v| *v == type1.virtualization);
            raw.mode_config.choice = count("virtualization", choice.unwrap_or_default())?;
            raw.mode_config.flags =
                if type1.nested { NESTED } else { 0 } | if type1.debug { DEBUG } else { 0 };
            raw.mode_config.tsc_khz = type1.tsc_khz.unwrap_or_default();
            if type1.console == Type1Console::None {
                raw.mode_config.flags |= NO_CONSOLE;
            }
            image = config.image.as_deref();
            cmdline = &type1.cmdline;
            raw_parts(type1)?
        }
        ModeSpecificConfig::VirtIO(virtio) => {
            raw.mode_config.choice = u32::from(virtio.transport == Transport::Mmio);
            virtio.devices.iter().map(raw_device).collect::<Result<_, _>>()?
        }
        ModeSpecificConfig::Hvt(hvt) => {
            raw.mode_config.flags = (!hvt.net_ring).into();
            cmdline = &hvt.cmdline;
            if let ManifestSource::Path(path) = &hvt.manifest {
                manifest = path;
            }
            hvt.resources.iter().map(raw_resource).collect::<Result<_, _>>()?
        }
    };
    let image = image.unwrap_or_default();
    raw.entries = count("entries", entries.len())?;
    raw.image_length = count("image", image.len())?;
    raw.manifest_length = count("manifest", manifest.len())?;
    raw.cmdline_length = count("command line", cmdline.len())?;
    let mut bytes = raw.as_bytes().to_vec();
    entries.iter().for_each(|entry| bytes.extend(entry.as_bytes()));
    bytes.extend(config.cpus.as_bytes());
    [image, manifest, cmdline].iter().for_each(|text| bytes.extend(text.as_bytes()));
    Ok(bytes)
}

fn count(name: &'static str, length: usize) -> Result<u32, CallError> {
    u32::try_from(length).map_err(|_| CallError::Text(name))
}

fn fit<const N: usize>(name: &'static str, value: &str) -> Result<[u8; N], CallError> {
    if value.len() < N { Ok(text(value)) } else { Err(CallError::Text(name)) }
}

fn blank(kind: u32) -> RawEntry {
    RawEntry { kind, ..RawEntry::new_zeroed() }
}

fn raw_net(source: &str, mac: Option<[u8; 6]>) -> Result<RawEntry, CallError> {
    Ok(RawEntry {
        flags: if mac.is_some() { HAS_MAC } else { 0 },
        mac: mac.unwrap_or_default(),
        source: fit("interface", source)?,
        ..blank(2)
    })
}

fn raw_parts(type1: &Type1Config) -> Result<Vec<RawEntry>, CallError> {
    let images = [(KERNEL, &type1.kernel), (INITRD, &type1.initrd), (FIRMWARE, &type1.firmware)];
    let images = images.into_iter().filter_map(|(kind, name)| Some((kind, name.as_ref()?)));
    let images =
        images.map(|(kind, name)| Ok(RawEntry { source: fit("image", name)?, ..blank(kind) }));
    let disks = type1.disks.iter().map(|disk| {
        let flags = if disk.read_only { READ_ONLY } else { 0 };
        Ok(RawEntry { flags, source: fit("path", &disk.path)?, ..blank(1) })
    });
    let nets = type1.nets.iter();
    let nets = nets.map(|net| raw_net(net.interface.as_deref().unwrap_or_default(), net.mac));
    let mut parts = images.chain(disks).chain(nets).collect::<Result<Vec<_>, CallError>>()?;
    for module in &type1.modules {
        parts.push(RawEntry { source: fit("path", &module.path)?, ..blank(MODULE) });
        for piece in pieces(&module.cmdline) {
            parts.push(RawEntry { source: text(piece), ..blank(MODULE_TEXT) });
        }
    }
    Ok(parts)
}

/// A text in pieces that fit an entry.
fn pieces(mut rest: &str) -> impl Iterator<Item = &str> {
    const MOST: usize = 255;
    core::iter::from_fn(move || {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(MOST));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

fn raw_resource(resource: &HvtResource) -> Result<RawEntry, CallError> {
    let mut raw = match &resource.kind {
        ResourceKind::Block { path, sector_size } => {
            RawEntry { sector_size: *sector_size, source: fit("path", path)?, ..blank(1) }
        }
        ResourceKind::Net { interface, mac } => raw_net(interface, *mac)?,
    };
    raw.name = fit("name", resource.name.as_deref().unwrap_or_default())?;
    Ok(raw)
}

fn raw_device(device: &VirtioDevice) -> Result<RawEntry, CallError> {
    Ok(match device {
        VirtioDevice::Blk { path, read_only } => RawEntry {
            flags: if *read_only { READ_ONLY } else { 0 },
            source: fit("path", path)?,
            ..blank(1)
        },
        VirtioDevice::Net { interface, mac } => {
            raw_net(interface.as_deref().unwrap_or_default(), *mac)?
        }
        VirtioDevice::Console => blank(3),
        VirtioDevice::Fs { path, tag } => {
            RawEntry { name: fit("tag", tag)?, source: fit("path", path)?, ..blank(4) }
        }
        VirtioDevice::Gpu => blank(5),
    })
}
