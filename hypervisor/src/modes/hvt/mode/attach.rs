//! Joins a description's resources to the devices of a manifest.
//!
//! A resource with a name is for the device of that name and type. One without is for the first
//! device of its type, in the manifest's order, that no other resource has. Every device gets
//! exactly one resource.

use super::HvtError;
use super::host::HvtSession;
use crate::config::{HvtResource, ResourceKind};
use crate::host::Told;
use crate::mode::LendError;
use crate::modes::hvt::manifest::{self, DeviceKind, Manifest};
use crate::modes::hvt::service::Device;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Opens everything and fills the manifest in; gives the devices by handle.
pub(super) fn attach(
    resources: &[HvtResource],
    manifest: &mut Manifest,
    session: &mut dyn HvtSession,
) -> Result<Vec<Option<Device>>, HvtError> {
    let mut devices: Vec<Option<Device>> = (0..manifest.len()).map(|_| None).collect();
    let named = resources.iter().filter(|resource| resource.name.is_some());
    let unnamed = resources.iter().filter(|resource| resource.name.is_none());
    for resource in named.chain(unnamed) {
        let handle = choose(resource, manifest)?;
        devices[handle] = Some(open(&resource.kind, handle, manifest, session)?);
    }
    match manifest.unattached().next() {
        Some(manifest::NotAttached(device)) => {
            Err(HvtError::NotAttached { name: device.name.clone(), kind: device.kind })
        }
        None => Ok(devices),
    }
}

/// The handle of the device that a resource is for; less than the manifest's length.
fn choose(resource: &HvtResource, manifest: &Manifest) -> Result<usize, HvtError> {
    let kind = match resource.kind {
        ResourceKind::Block { .. } => DeviceKind::Block,
        ResourceKind::Net { .. } => DeviceKind::Net,
    };
    let Some(name) = &resource.name else {
        let free = |device: &manifest::Device| device.kind == kind && device.attachment.is_none();
        let first = manifest.devices().find(|(_, device)| free(device));
        return first.map(|(handle, _)| handle).ok_or(HvtError::LeftOver(kind));
    };
    manifest.find(name, kind).ok_or_else(|| HvtError::NotDeclared {
        name: name.clone(),
        kind,
        declared: declared(manifest, kind),
    })
}

fn declared(manifest: &Manifest, kind: DeviceKind) -> String {
    let of_kind = manifest.devices().filter(|(_, device)| device.kind == kind);
    let names: Vec<&str> = of_kind.map(|(_, device)| &*device.name).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

fn open(
    kind: &ResourceKind,
    handle: usize,
    manifest: &mut Manifest,
    session: &mut dyn HvtSession,
) -> Result<Device, HvtError> {
    match kind {
        ResourceKind::Block { path, sector_size } => {
            let named = |error| LendError::Resource { what: "block", name: path.clone(), error };
            let store = session.block(path).map_err(named)?;
            let size = Some(u64::from(*sector_size));
            manifest.attach_block(handle, store.capacity(), size)?;
            Ok(match session.notices() {
                Some(log) => Device::Block(Box::new(Told::new(store, format!("disk {path}"), log))),
                None => Device::Block(store),
            })
        }
        ResourceKind::Net { interface, mac } => {
            let named =
                |error| LendError::Resource { what: "network", name: interface.clone(), error };
            // A manifest has at most 64 entries.
            let number = u32::try_from(handle).unwrap_or(u32::MAX);
            let port = session.net(number, interface, *mac).map_err(named)?;
            manifest.attach_net(handle, port.mac(), port.mtu())?;
            let name = || format!("network {interface}");
            Ok(match session.notices() {
                Some(log) => Device::Net(Box::new(Told::new(port, name(), log))),
                None => Device::Net(port),
            })
        }
    }
}
