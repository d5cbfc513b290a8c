//! Attaches what the command line names to the devices of a unikernel's manifest.

use crate::args::DeviceOption;
use crate::tell;
use crate::troubles::Troubles;
use host_linux::block::FileBlock;
use host_linux::confine::Rule;
use host_linux::net::Port;
use host_linux::wait::Buffered;
use hypervisor::host::{BlockStore, Told};
use hypervisor::modes::hvt::manifest::{DeviceKind, Manifest};
use hypervisor::modes::hvt::service::Device;
use rustix::fd::RawFd;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The devices of one guest, attached.
pub struct Devices {
    /// By handle.
    pub devices: Vec<Option<Device>>,
    /// Descriptors that they use.
    pub descriptors: Vec<RawFd>,
    /// System calls that they make.
    pub rules: Vec<Rule>,
    /// Networks to wait for: handle and descriptor.
    pub nets: Vec<(u32, RawFd)>,
    /// Networks that may have a frame the kernel does not know of, by handle.
    pub buffered: Vec<(u32, Arc<dyn Buffered>)>,
}

/// What was given for one device before it is opened.
#[derive(Default)]
struct Given<'a> {
    net: Option<&'a str>,
    mac: Option<[u8; 6]>,
    block: Option<&'a std::ffi::OsStr>,
    sector: Option<u16>,
}

/// Opens everything and fills the manifest in. Failures of a device go to `log`, if there is one.
///
/// # Errors
/// In words for a person.
pub fn attach(
    options: &[DeviceOption],
    manifest: &mut Manifest,
    log: Option<&Arc<Troubles>>,
) -> Result<Devices, String> {
    let given = collect(options, manifest)?;
    let mut all = Devices {
        devices: (0..manifest.len()).map(|_| None).collect(),
        descriptors: Vec::new(),
        rules: Vec::new(),
        nets: Vec::new(),
        buffered: Vec::new(),
    };
    for (handle, given) in given {
        if let Some(path) = given.block {
            let store = FileBlock::open(path)?;
            manifest
                .attach_block(handle, store.capacity(), given.sector.map(u64::from))
                .map_err(|e| e.to_string())?;
            all.add(store.fd(), store.rules());
            let name = format!("block device {}", Path::new(path).display());
            all.devices[handle] = Some(Device::Block(told(Box::new(store), name, log)));
        }
        if let Some(spec) = given.net {
            let port = Port::attach(spec, given.mac)
                .map_err(|e| format!("Could not attach interface: {spec}: {e}"))?;
            let (mac, mtu) = port.address();
            manifest.attach_net(handle, mac, mtu).map_err(|e| e.to_string())?;
            all.add(port.fd(), port.rules());
            let number = u32::try_from(handle).unwrap_or(u32::MAX);
            all.nets.push((number, port.fd()));
            all.buffered.extend(port.buffered().map(|buffered| (number, buffered)));
            let name = format!("network {spec}");
            all.devices[handle] = Some(Device::Net(told(port.into_box(), name, log)));
        }
    }
    check_complete(manifest)?;
    Ok(all)
}

/// The device, which tells of its failures.
fn told<T: ?Sized>(device: Box<T>, name: String, log: Option<&Arc<Troubles>>) -> Box<T>
where
    Told<T>: Into<Box<T>>,
{
    match log {
        Some(log) => Told::new(device, name, Arc::<Troubles>::clone(log)).into(),
        None => device,
    }
}

impl Devices {
    fn add(&mut self, fd: RawFd, rules: Vec<Rule>) {
        self.descriptors.push(fd);
        self.rules.extend(rules);
    }
}

/// Joins the options that concern the same device; a later one replaces an earlier one.
fn collect<'a>(
    options: &'a [DeviceOption],
    manifest: &Manifest,
) -> Result<BTreeMap<usize, Given<'a>>, String> {
    let mut given: BTreeMap<usize, Given<'a>> = BTreeMap::new();
    for option in options {
        let (name, kind) = match option {
            DeviceOption::Net(name, _) | DeviceOption::NetMac(name, _) => (name, DeviceKind::Net),
            DeviceOption::Block(name, _) | DeviceOption::BlockSectorSize(name, _) => {
                (name, DeviceKind::Block)
            }
        };
        let handle = manifest.find(name, kind).ok_or_else(|| undeclared(name, kind, manifest))?;
        let entry = given.entry(handle).or_default();
        match option {
            DeviceOption::Net(_, spec) => entry.net = Some(spec),
            DeviceOption::NetMac(_, mac) => entry.mac = Some(*mac),
            DeviceOption::Block(_, path) => entry.block = Some(path),
            DeviceOption::BlockSectorSize(_, bytes) => entry.sector = Some(*bytes),
        }
    }
    Ok(given)
}

fn undeclared(name: &str, kind: DeviceKind, manifest: &Manifest) -> String {
    let declared: Vec<&str> =
        manifest.devices().filter(|(_, d)| d.kind == kind).map(|(_, d)| &*d.name).collect();
    let declared = if declared.is_empty() { "none".to_owned() } else { declared.join(", ") };
    format!("Resource not declared in manifest: '{name}' (declared of type {kind}: {declared})")
}

fn check_complete(manifest: &Manifest) -> Result<(), String> {
    let mut missing = false;
    for device in manifest.unattached() {
        let name = &device.0.name;
        let option = match device.0.kind {
            DeviceKind::Net => format!("--net:{name}=IFACE or --net:{name}=user"),
            _ => format!("--block:{name}=PATH"),
        };
        tell::warn(format_args!("{device} Give {option}"));
        missing = true;
    }
    if missing {
        return Err("All declared devices must be attached. See --help for syntax.".to_owned());
    }
    Ok(())
}
