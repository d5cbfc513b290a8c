//! The machine as a host: files of the boot module, switches.

use super::files::Files;
use super::session::Session;
use crate::devices::{self, Devices};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use host_baremetal::disk;
use host_baremetal::net::port::{Port, Waker};
use host_baremetal::net::switch::Switch;
use hypervisor::host::mac::stable_mac;
use hypervisor::host::{Blob, BlockStore, HostError, HostErrorKind};
use hypervisor::modes::hvt::mode::{HvtHost, HvtSession};
use hypervisor::modes::type1::host::ConsoleInput;
use hypervisor::sync::Mutex;
use hypervisor::vm::VmId;

/// Networks of the machine itself: `nic0`, `nic1`, …
const NIC: &str = "nic";
/// After a network's name: the guest may send from any hardware address.
const ANY_MAC: &str = ",any-mac";

/// What the machine has for guests.
pub struct Machine {
    /// Looked for when one is first asked for.
    devices: Mutex<Option<Arc<Mutex<Devices>>>>,
    /// The boot module.
    pub files: Arc<Files>,
    /// Networks by name; made when they are first named.
    switches: Mutex<BTreeMap<String, Arc<Switch>>>,
    /// Where what is typed to a VM goes, of those that take it. A leaf lock.
    pub inputs: Mutex<BTreeMap<VmId, Arc<dyn ConsoleInput>>>,
}

impl Machine {
    /// A machine with this boot module.
    pub fn new(files: Files) -> Self {
        Self {
            devices: Mutex::new(None),
            files: Arc::new(files),
            switches: Mutex::default(),
            inputs: Mutex::default(),
        }
    }

    /// The machine's devices. Only the console and the first thread make VMs, one at a time, so
    /// they are looked for once.
    #[inline(never)]
    fn devices(&self) -> Arc<Mutex<Devices>> {
        let known = self.devices.lock().clone();
        known.unwrap_or_else(|| {
            let found = Arc::new(Mutex::new(devices::find()));
            self.devices.lock().get_or_insert(found).clone()
        })
    }

    /// Connects network `index` of a VM to the network that `interface` names, under its own address
    /// or one that follows from its name and stays the same.
    pub fn connect(
        &self,
        (vm, index): (VmId, u32),
        interface: &str,
        mac: Option<[u8; 6]>,
        waker: Arc<dyn Waker>,
    ) -> Result<Port, HostError> {
        let (name, trusted) = match interface.strip_suffix(ANY_MAC) {
            Some(name) => (name, true),
            None => (interface, false),
        };
        let mac = mac.unwrap_or_else(|| {
            let identity = self.devices().lock().identity;
            stable_mac(&identity, &crate::terminal::name(vm.get()), index)
        });
        let port = Port::connect(self.switch(name)?, mac, waker)?;
        if trusted {
            port.trust();
        }
        Ok(port)
    }

    /// The network of this name; a network of the machine is the uplink of the one of its name.
    fn switch(&self, name: &str) -> Result<Arc<Switch>, HostError> {
        if let Some(switch) = self.switches.lock().get(name) {
            return Ok(switch.clone());
        }
        let switch = Arc::new(Switch::new());
        if let Some(Ok(number)) = name.strip_prefix(NIC).map(str::parse::<usize>) {
            let devices = self.devices();
            let nic = devices.lock().nics.get_mut(number).and_then(Option::take);
            let what = "the machine has no such network, or none that is virtio";
            let missing = HostError::new(HostErrorKind::Other, what);
            nic.ok_or(missing)?.connect(switch.clone());
        }
        self.switches.lock().insert(name.into(), switch.clone());
        Ok(switch)
    }

    /// A disk by its name: a part of one of the machine's, or a file of the boot module.
    pub fn disk(&self, path: &str, read_only: bool) -> Result<Box<dyn BlockStore>, HostError> {
        let Some(named) = disk::parse(path) else { return self.files.disk(path, read_only) };
        let error = |what| HostError::new(HostErrorKind::Other, what);
        let (number, part) = named.map_err(|_| {
            error("a part of a disk is diskN, diskN:PARTITION or diskN:START+LENGTH")
        })?;
        let devices = self.devices();
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        let disk = devices.lock().disks.get(index).cloned();
        disk.ok_or(error("the machine has no such disk, or none that is virtio"))?.share(part)
    }
}

/// The machine, as modes are lent it.
#[derive(Clone)]
pub struct Host(pub Arc<Machine>);

impl HvtHost for Host {
    fn open(&self, path: &str) -> Result<Box<dyn Blob>, HostError> {
        self.0.files.open(path)
    }

    fn session(&self, vm: VmId, name: &str) -> Result<Box<dyn HvtSession>, HostError> {
        crate::terminal::add_guest(vm.get(), name);
        let machine = self.0.clone();
        Ok(Box::new(Session { machine, vm, kick: Arc::default(), queues: Vec::new() }))
    }
}
