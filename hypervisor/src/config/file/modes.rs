//! `[vm.type1]`, `[vm.virtio]` and `[vm.hvt]`.

use super::reader::{At, Reader};
use crate::config::{
    ConfigError, DEFAULT_SECTOR_SIZE, HvtConfig, HvtResource, ManifestSource, Problem,
    ResourceKind, Transport, Type1Config, Type1Console, Type1Disk, Type1Module, Type1Net,
    VirtioConfig, VirtioDevice, VirtioDeviceKind, Virtualization, validate,
};
use alloc::string::String;

pub(super) const TYPE1_KEYS: [&str; 12] = [
    "virtualization",
    "nested",
    "kernel",
    "initrd",
    "modules",
    "cmdline",
    "firmware",
    "tsc_khz",
    "disks",
    "nets",
    "console",
    "debug",
];
pub(super) const VIRTIO_KEYS: [&str; 2] = ["transport", "devices"];
pub(super) const HVT_KEYS: [&str; 6] =
    ["unikernel", "manifest", "resources", "cmdline", "args", "net_ring"];
const DEVICE_KEYS: [&str; 7] = ["type", "driver", "path", "read_only", "interface", "mac", "tag"];
const MODULE_KEYS: [&str; 2] = ["path", "cmdline"];
const DISK_KEYS: [&str; 2] = ["path", "read_only"];
const NET_KEYS: [&str; 2] = ["interface", "mac"];
const RESOURCE_KEYS: [&str; 6] = ["type", "name", "path", "sector_size", "interface", "mac"];

const VIRTUALIZATIONS: [&str; 4] = names(&Virtualization::NAMES);
const CONSOLES: [&str; 2] = names(&Type1Console::NAMES);
const TRANSPORTS: [&str; 2] = names(&Transport::NAMES);
const DEVICES: [&str; 5] = names(&VirtioDeviceKind::NAMES);
const RESOURCES: [(&str, bool); 2] = [("block", true), ("net", false)];
const RESOURCE_NAMES: [&str; 2] = names(&RESOURCES);

const fn names<T: Copy, const N: usize>(pairs: &[(&'static str, T); N]) -> [&'static str; N] {
    let mut names = [""; N];
    let mut i = 0;
    while i < N {
        names[i] = pairs[i].0;
        i += 1;
    }
    names
}

pub(super) fn type1(table: &Reader<'_, '_>) -> Result<Type1Config, ConfigError> {
    let virtualization =
        table.choice("virtualization", &VIRTUALIZATIONS, &Virtualization::NAMES)?;
    let modules = table.tables("modules", Type1Config::MAX_MODULES, &MODULE_KEYS)?;
    let most = Type1Config::MAX_DEVICES;
    let disks = table.tables("disks", most, &DISK_KEYS)?;
    let nets = table.tables("nets", most, &NET_KEYS)?;
    validate::count("disks and nets", disks.len() + nets.len(), most)
        .map_err(|problem| table.error(table.at_key("nets"), problem))?;
    Ok(Type1Config {
        virtualization,
        nested: table.boolean("nested")?.unwrap_or_default(),
        kernel: filled(table, "kernel")?,
        initrd: filled(table, "initrd")?,
        modules: modules.iter().map(module).collect::<Result<_, _>>()?,
        cmdline: kernel_cmdline(table)?,
        firmware: filled(table, "firmware")?,
        tsc_khz: table.integer("tsc_khz", Type1Config::TSC_KHZ)?,
        disks: disks.iter().map(disk).collect::<Result<_, _>>()?,
        nets: nets.iter().map(net).collect::<Result<_, _>>()?,
        console: table.choice("console", &CONSOLES, &Type1Console::NAMES)?.unwrap_or_default(),
        debug: table.boolean("debug")?.unwrap_or_default(),
    })
}

fn kernel_cmdline(table: &Reader<'_, '_>) -> Result<String, ConfigError> {
    let Some((text, at)) = table.string("cmdline")? else { return Ok(String::new()) };
    let checked = validate::cmdline("cmdline", text, Type1Config::MAX_CMDLINE);
    checked.map_err(|problem| table.error(at, problem))?;
    Ok(text.into())
}

fn module(table: &Reader<'_, '_>) -> Result<Type1Module, ConfigError> {
    let path = required(table, "path", "\"/path/to/module\"")?;
    Ok(Type1Module { path, cmdline: kernel_cmdline(table)? })
}

fn disk(table: &Reader<'_, '_>) -> Result<Type1Disk, ConfigError> {
    Ok(Type1Disk {
        path: required(table, "path", "\"/path/to/disk.img\"")?,
        read_only: table.boolean("read_only")?.unwrap_or_default(),
    })
}

fn net(table: &Reader<'_, '_>) -> Result<Type1Net, ConfigError> {
    Ok(Type1Net { interface: filled(table, "interface")?, mac: mac(table)? })
}

pub(super) fn virtio(table: &Reader<'_, '_>) -> Result<VirtioConfig, ConfigError> {
    let transport = table.choice("transport", &TRANSPORTS, &Transport::NAMES)?.unwrap_or_default();
    let devices = table.tables("devices", VirtioConfig::MAX_DEVICES, &DEVICE_KEYS)?;
    let devices = devices.iter().map(device).collect::<Result<_, _>>()?;
    Ok(VirtioConfig { transport, devices })
}

fn device(table: &Reader<'_, '_>) -> Result<VirtioDevice, ConfigError> {
    let Some(kind) = table.choice("type", &DEVICES, &VirtioDeviceKind::NAMES)? else {
        return Err(table.missing("type", "\"net\""));
    };
    driver(table, kind)?;
    let has: &[&str] = match kind {
        VirtioDeviceKind::Net => &["interface", "mac"],
        VirtioDeviceKind::Blk => &["path", "read_only"],
        VirtioDeviceKind::Fs => &["path", "tag"],
        VirtioDeviceKind::Console | VirtioDeviceKind::Gpu => &[],
    };
    only(table, kind.driver(), has, &DEVICE_KEYS[2..])?;
    Ok(match kind {
        VirtioDeviceKind::Net => {
            VirtioDevice::Net { interface: filled(table, "interface")?, mac: mac(table)? }
        }
        VirtioDeviceKind::Blk => VirtioDevice::Blk {
            path: required(table, "path", "\"/path/to/disk.img\"")?,
            read_only: table.boolean("read_only")?.unwrap_or_default(),
        },
        VirtioDeviceKind::Console => VirtioDevice::Console,
        VirtioDeviceKind::Fs => VirtioDevice::Fs {
            path: required(table, "path", "\"/path/to/directory\"")?,
            tag: tag(table)?,
        },
        VirtioDeviceKind::Gpu => VirtioDevice::Gpu,
    })
}

/// `driver` says again what `type` says; it may not say something else.
fn driver(table: &Reader<'_, '_>, kind: VirtioDeviceKind) -> Result<(), ConfigError> {
    match table.string("driver")? {
        Some((found, at)) if found != kind.driver() => {
            let rule = alloc::format!("write \"{}\", or leave it out", kind.driver());
            let problem = Problem::Value { key: "driver".into(), found: found.into(), rule };
            Err(table.error(at, problem))
        }
        _ => Ok(()),
    }
}

/// VIRTIO 1.3 §5.11.4: a tag is 1 to 36 bytes.
fn tag(table: &Reader<'_, '_>) -> Result<String, ConfigError> {
    let tag = required(table, "tag", "\"share\"")?;
    if tag.len() <= 36 {
        return Ok(tag);
    }
    let rule = "write 1 to 36 bytes".into();
    Err(table.error(table.at_key("tag"), Problem::Value { key: "tag".into(), found: tag, rule }))
}

pub(super) fn hvt(table: &Reader<'_, '_>) -> Result<HvtConfig, ConfigError> {
    let manifest = match filled(table, "manifest")? {
        Some(path) if path != "auto" => ManifestSource::Path(path),
        _ => ManifestSource::Embedded,
    };
    let mut config = HvtConfig {
        unikernel: filled(table, "unikernel")?,
        manifest,
        cmdline: cmdline(table)?,
        net_ring: table.boolean("net_ring")?.unwrap_or(true),
        ..HvtConfig::default()
    };
    for table in table.tables("resources", HvtConfig::MAX_RESOURCES, &RESOURCE_KEYS)? {
        let resource = resource(&table)?;
        let unique = validate::unique(&resource, &config.resources);
        unique.map_err(|problem| table.error(table.at_key("name"), problem))?;
        config.resources.push(resource);
    }
    Ok(config)
}

/// `cmdline`, or `args` joined by blanks.
fn cmdline(table: &Reader<'_, '_>) -> Result<String, ConfigError> {
    let whole = table.string("cmdline")?;
    let (key, text) = match (whole, table.strings("args")?) {
        (Some(_), Some(_)) => {
            let problem = Problem::Conflict { one: "`cmdline`".into(), other: "`args`".into() };
            return Err(table.error(table.at_key("args"), problem));
        }
        (Some((text, _)), None) => ("cmdline", String::from(text)),
        (None, Some(args)) => ("args", args.join(" ")),
        (None, None) => return Ok(String::new()),
    };
    let checked = validate::cmdline(key, &text, HvtConfig::MAX_CMDLINE);
    checked.map_err(|problem| table.error(table.at_key(key), problem))?;
    Ok(text)
}

fn resource(table: &Reader<'_, '_>) -> Result<HvtResource, ConfigError> {
    let Some(block) = table.choice("type", &RESOURCE_NAMES, &RESOURCES)? else {
        return Err(table.missing("type", "\"block\" or \"net\""));
    };
    let name = table.string("name")?;
    if let Some((name, at)) = name {
        validate::device_name(name).map_err(|problem| table.error(at, problem))?;
    }
    let kind = if block { block_resource(table)? } else { net_resource(table)? };
    Ok(HvtResource { name: name.map(|(name, _)| name.into()), kind })
}

fn block_resource(table: &Reader<'_, '_>) -> Result<ResourceKind, ConfigError> {
    only(table, "block", &["path", "sector_size"], &RESOURCE_KEYS[2..])?;
    let path = required(table, "path", "\"/path/to/data.img\"")?;
    let mut sector_size = DEFAULT_SECTOR_SIZE;
    if let Some((size, at)) = table.size("sector_size")? {
        validate::sector_size(size).map_err(|problem| table.error(at, problem))?;
        sector_size = u32::try_from(size).unwrap_or(sector_size);
    }
    Ok(ResourceKind::Block { path, sector_size })
}

fn net_resource(table: &Reader<'_, '_>) -> Result<ResourceKind, ConfigError> {
    only(table, "net", &["interface", "mac"], &RESOURCE_KEYS[2..])?;
    let interface = required(table, "interface", "\"tap0\"")?;
    Ok(ResourceKind::Net { interface, mac: mac(table)? })
}

/// Refuses keys that belong to another type of the same list.
fn only(
    table: &Reader<'_, '_>,
    of: &'static str,
    has: &[&str],
    all: &'static [&'static str],
) -> Result<(), ConfigError> {
    for key in all.iter().filter(|key| !has.contains(key)) {
        if let Some(at) = table.find(key) {
            return Err(table.error(at, Problem::Foreign { key: (*key).into(), of }));
        }
    }
    Ok(())
}

fn mac(table: &Reader<'_, '_>) -> Result<Option<[u8; 6]>, ConfigError> {
    let Some((text, at)) = table.string("mac")? else { return Ok(None) };
    validate::mac(text).map(Some).map_err(|problem| table.error(at, problem))
}

/// A text that is not empty, if there is one.
fn filled(table: &Reader<'_, '_>, key: &'static str) -> Result<Option<String>, ConfigError> {
    let Some((text, at)): Option<(&str, At)> = table.string(key)? else { return Ok(None) };
    validate::filled(key, text).map_err(|problem| table.error(at, problem))?;
    Ok(Some(text.into()))
}

fn required(
    table: &Reader<'_, '_>,
    key: &'static str,
    example: &'static str,
) -> Result<String, ConfigError> {
    filled(table, key)?.ok_or_else(|| table.missing(key, example))
}
